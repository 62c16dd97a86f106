// SPDX-License-Identifier: Apache-2.0
#include "device/flusher.h"

#include <utility>

#include "device/mover.h"
#include "device/statistics.h"
#include "os/canary.h"

namespace oxbow {

Flusher::Kick::Kick(Flusher& owner_flusher, Queue& owner) noexcept
    : Io(owner,
         [](Io& self) noexcept {
           Flusher& kicked = static_cast<Kick&>(self).flusher;
           // A run reports to the waiters by itself; only one that could not even start has nothing told them.
           const Progress progress = kicked.run(kicked.queue_).detach(kicked.finished_);
           if (!progress.is_done() || progress.status().ok()) return;
           do {
             answer(kicked.take_waiting(), progress.status());
           } while (!kicked.finish());
         }),
      flusher(owner_flusher) {}

Flusher::Flusher(Target& target, Mover& mover, StickyFailure& failure, Statistics& statistics, Queue* queue)
    : target_(&target),
      mover_(mover),
      failure_(failure),
      statistics_(statistics),
      own_queue_(queue == nullptr ? std::make_unique<Queue>() : nullptr),
      queue_(queue == nullptr ? *own_queue_ : *queue),
      kick_(*this, queue_),
      finished_(queue_) {
  if (own_queue_ != nullptr) thread_ = std::jthread([this] { serve(); });
}

Flusher::~Flusher() {
  if (!thread_.joinable()) return;
  stop_.store(true, std::memory_order_release);
  struct Wake : Io {
    explicit Wake(Queue& owner) noexcept : Io(owner, [](Io&) noexcept {}) {}
  } wake(queue_);
  queue_.post(wake, {});
  thread_.join();
}

bool Flusher::running() noexcept {
  const std::lock_guard lock(mutex_);
  return running_;
}

void Flusher::serve() noexcept {
  // A chore that is under way is brought to its end.
  while (!stop_.load(std::memory_order_acquire) || running()) {
    if (!queue_.poll()) queue_.wait();
  }
}

Progress Flusher::join(Io& waiter) noexcept {
  bool kick = false;
  {
    const std::lock_guard lock(mutex_);
    waiter.next = waiting_;
    waiting_ = &waiter;
    kick = !std::exchange(running_, true);
  }
  if (kick) queue_.post(kick_, {});
  return Progress::pending();
}

Progress Flusher::pause(Io& io) noexcept {
  const std::lock_guard lock(mutex_);
  paused_ = true;
  if (!running_) return Progress::done();
  pausing_ = &io;
  return Progress::pending();
}

void Flusher::go_on() noexcept {
  const std::lock_guard lock(mutex_);
  paused_ = false;
}

// Null when nobody waits.
Io* Flusher::take_waiting() noexcept {
  const std::lock_guard lock(mutex_);
  return std::exchange(waiting_, nullptr);
}

// Whether there is something better to do than chores.
bool Flusher::disturbed() noexcept {
  const std::lock_guard lock(mutex_);
  return waiting_ != nullptr || paused_ || stop_.load(std::memory_order_acquire);
}

// Ends the run, unless somebody waits.
bool Flusher::finish() noexcept {
  const std::lock_guard lock(mutex_);
  if (waiting_ != nullptr) return false;
  running_ = false;
  if (Io* const io = std::exchange(pausing_, nullptr)) io->queue->post(*io, {});
  return true;
}

void Flusher::answer(Io* served, IoStatus status) noexcept {
  while (served != nullptr) {
    Io* const each = std::exchange(served, served->next);
    each->queue->post(*each, status.ok() ? status : IoStatus::error(EIO));
  }
}

Task Flusher::run(Queue& queue) {
  do {
    while (Io* const served = take_waiting()) {
      bool more = true;
      IoStatus status;
      while (more && status.ok()) status = co_await flush_once(queue, more);
      answer(served, status);
    }
    (void)co_await run_chores(queue);
  } while (!finish());
  co_return IoStatus{};
}

// What goes wrong is the target's to note; what makes the device fail does so.
Task Flusher::run_chores(Queue& queue) {
  while (!disturbed() && failure_.status().ok()) {
    const Step step = target_->chore();
    if (step.answer != Answer::prepare) break;
    Store* full = nullptr;
    (void)co_await mover_.prepare(queue, *step.owner, step.key, full);
  }
  co_return IoStatus{};
}

Task Flusher::flush_once(Queue& queue, bool& more) {
  more = false;
  if (const IoStatus failed = failure_.status(); !failed.ok()) co_return failed;
  statistics_.add(queue.shard(), Counter::flush_rounds);
  FlushPlan plan;
  plan.buffers = &queue.buffers();
  target_->capture(plan);
  IoStatus status = plan.status;
  if (status.ok()) status = co_await carry_out(queue, plan);
  if (!status.ok()) failure_.set(status);
  for (Target* owner : plan.owners) owner->flushed(plan, status);
  more = plan.more;
  co_return status;
}

Task Flusher::carry_out(Queue& queue, FlushPlan& plan) {
  IoStatus status;
  if (!plan.reads.empty()) {
    status = co_await read_back(queue, plan);
    if (!status.ok()) co_return status;
  }
  for (Target* owner : plan.owners) owner->seal(plan);
  const bool swapped = canary(Canary::flush_barriers_swapped);
  for (const std::size_t index : {std::size_t{0}, std::size_t{1}}) {
    const std::size_t round = swapped ? 1 - index : index;
    const bool barrier = round != 0 || !canary(Canary::first_barrier_dropped);
    status = co_await carry_out(queue, plan.rounds[round], barrier);
    // A barrier that failed meanwhile, for somebody else, may have left clean what this one was to write.
    if (status.ok()) status = failure_.status();
    if (!status.ok()) co_return status;
  }
  co_return status;
}

Task Flusher::read_back(Queue& queue, FlushPlan& plan) {
  WaitBatch<16> batch(queue);
  for (const FlushRead& read : plan.reads) {
    if (batch.full()) {
      const IoStatus status = co_await batch;
      if (!status.ok()) co_return status;
    }
    Io& io = batch.next();
    batch.submitted(read.store->read(io, read.at, read.into, ReadMode::may_wait));
  }
  const IoStatus status = co_await batch;
  if (!status.ok()) co_return status;
  // Where writing back failed, the cache may have been emptied since: then these bytes are old ones.
  Store* asked = nullptr;
  for (const FlushRead& read : plan.reads) {
    if (std::exchange(asked, read.store) == read.store) continue;
    const IoStatus whole = read.store->written_back();
    if (!whole.ok()) co_return whole;
  }
  co_return IoStatus{};
}

Task Flusher::carry_out(Queue& queue, const FlushPlan::Round& round, bool barrier) {
  WaitBatch<16> batch(queue);
  IoStatus status;
  for (const FlushWrite& write : round.writes) {
    if (batch.full()) {
      status = co_await batch;
      if (!status.ok()) co_return status;
    }
    Io& io = batch.next();
    // iovec has no const form; stores only read from the list of a write.
    io.iov.push_back({const_cast<std::byte*>(write.data.data()), write.data.size()});
    statistics_.add(queue.shard(), Counter::metadata_bytes, write.data.size());
    batch.submitted(write.store->write(io, write.at, write.mode));
  }
  status = co_await batch;
  if (!status.ok() || !barrier) co_return status;
  for (Store* store : round.syncs) {
    WaitIo io(queue);
    const Progress progress = store->sync(io);
    status = co_await io(progress);
    if (!status.ok()) co_return status;
  }
  co_return IoStatus{};
}

}  // namespace oxbow
