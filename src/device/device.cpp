// SPDX-License-Identifier: Apache-2.0
#include "device/device.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "device/flusher.h"
#include "device/latency.h"
#include "device/mover.h"
#include "device/room.h"
#include "device/statistics.h"
#include "device/zeros.h"
#include "os/canary.h"
#include "os/task.h"

namespace oxbow {

// What the parts of a device share. Thread safety: as its parts say.
struct Device::Parts {
  Parts(Target& target, const Options& options, Queue* flush_queue)
      : room(failure, {.on_full = options.on_full,
                       .device = options.name,
                       .log = options.log,
                       .own_thread = flush_queue == nullptr}),
        mover(target, failure, statistics),
        flusher(target, mover, failure, statistics, flush_queue) {}

  Gate gate;
  StickyFailure failure;
  Statistics statistics;
  SharedLatencies latencies;
  Room room;
  Mover mover;
  Flusher flusher;
};

Device::Device(std::shared_ptr<Target> target, Options options, Queue* flush_queue)
    : target_(std::move(target)),
      options_(std::move(options)),
      size_(target_->size()),
      writable_(target_->writable() && !options_.read_only),
      parts_(std::make_unique<Parts>(*target_, options_, flush_queue)) {
  parts_->failure.tell(target_.get());
}

Device::Device(std::shared_ptr<Target> target, Options options, Queue& flush_queue)
    : Device(std::move(target), std::move(options), &flush_queue) {}

Device::Device(std::shared_ptr<Target> target, Options options)
    : Device(std::move(target), std::move(options), nullptr) {}

Device::~Device() = default;

Progress Device::counted(Queue& queue, Progress progress) noexcept {
  if (progress.is_done() && !progress.status().ok()) parts_->statistics.add(queue.shard(), Counter::errors);
  return progress;
}

template <typename Request>
Task Device::when_open(Queue& queue, const Io& whose, Request request) {
  WaitIo io(queue);
  io.part_of = &whose.request();
  const Progress opened = parts_->gate.wait(io);
  IoStatus status = co_await io(opened);
  // Closed again in between, it waits again.
  const Progress progress = request(io);
  status = co_await io(progress);
  co_return status;
}

Progress Device::read(Io& io, std::uint64_t at, std::span<std::byte> out) noexcept {
  Queue& queue = *io.queue;
  Gate::Pass pass = parts_->gate.enter(queue.shard());
  if (!pass) return when_open(queue, io, [=, this](Io& later) { return read(later, at, out); }).detach(io);
  const Range range{at, out.size()};
  if (!range.fits(size())) return counted(queue, Progress::failed(EINVAL));
  parts_->statistics.add(queue.shard(), Counter::reads);
  parts_->statistics.add(queue.shard(), Counter::read_bytes, out.size());
  IoStatus status;
  const std::uint64_t now = parts_->mover.read_now(io, range, out, status);
  if (now == out.size() || !status.ok()) return counted(queue, Progress::done(status));
  return counted(queue,
                 read_rest(queue, std::move(pass), range.without_prefix(now), out.subspan(now)).detach(io));
}

Task Device::read_rest(Queue& queue, Gate::Pass /*pass*/, Range range, std::span<std::byte> out) {
  const IoStatus status = co_await parts_->mover.read(queue, *target_, range, out);
  if (!status.ok()) parts_->statistics.add(queue.shard(), Counter::errors);
  co_return status;
}

IoStatus Device::check_change(Range range) const noexcept {
  if (!writable()) return IoStatus::error(EPERM);
  if (!range.fits(size())) return IoStatus::error(ENOSPC);
  return parts_->failure.status();
}

Progress Device::change(Io& io, Range range, Change change, std::span<const std::byte> data,
                        ZeroSpeed speed) noexcept {
  Queue& queue = *io.queue;
  Gate::Pass pass = parts_->gate.enter(queue.shard());
  if (!pass) {
    const auto request = [=, this](Io& later) { return this->change(later, range, change, data, speed); };
    return when_open(queue, io, request).detach(io);
  }
  const IoStatus allowed = check_change(range);
  if (!allowed.ok() || range.empty()) return counted(queue, Progress::done(allowed));
  if (speed == ZeroSpeed::fast && !target_->zeroes_fast(range, change.allocate)) {
    return counted(queue, Progress::failed(EOPNOTSUPP));
  }
  return run_change(queue, std::move(pass), io, range, change, data).detach(io);
}

Task Device::run_change(Queue& queue, Gate::Pass pass, const Io& request, Range range, Change change,
                        std::span<const std::byte> data) {
  bool join = false;
  IoStatus status;
  Store* full = nullptr;
  if (change.durable && parts_->room.paused()) status = co_await wait_for_pause(queue, pass, request);
  if (status.ok()) status = co_await parts_->mover.change(queue, range, change, data, join, full);
  if (!status.ok() && parts_->room.awaits(status)) {
    status = co_await change_later(queue, pass, request, {range, change, data, join, status, full});
    join = join || change.durable;
  }
  if (status.ok() && join && parts_->room.paused()) status = co_await wait_for_pause(queue, pass, request);
  if (status.ok() && join) {
    WaitIo io(queue);
    const Progress progress = parts_->flusher.join(io);
    pass.leave();  // a structure change waits for flushes by itself
    status = co_await io(progress);
  }
  // A barrier that failed meanwhile may have left clean what the durable write was to write.
  if (status.ok() && change.durable) status = parts_->failure.status();
  if (!status.ok()) parts_->statistics.add(queue.shard(), Counter::errors);
  co_return status;
}

// A change that found no room waits for it outside, and is tried again with the target of then.
Task Device::change_later(Queue& queue, Gate::Pass& pass, const Io& request, Unfinished left) {
  Room::Seat seat(parts_->room, request);
  IoStatus status = left.failed;
  while (parts_->room.awaits(status)) {
    WaitIo io(queue);
    const Progress progress = parts_->room.wait(seat, io, status, left.full);
    pass.leave();
    status = co_await io(progress);
    if (!status.ok() || canary(Canary::full_change_not_retried)) co_return status;
    status = co_await enter_again(queue, pass);
    if (status.ok()) status = check_change(left.range);
    if (!status.ok()) co_return status;
    status = co_await parts_->mover.change(queue, left.range, left.change, left.data, left.join, left.full);
  }
  if (status.ok()) seat.has_room();
  co_return status;
}

Task Device::enter_again(Queue& queue, Gate::Pass& pass) {
  for (pass = parts_->gate.enter(queue.shard()); !pass; pass = parts_->gate.enter(queue.shard())) {
    WaitIo io(queue);
    const Progress opened = parts_->gate.wait(io);
    (void)co_await io(opened);
  }
  co_return IoStatus{};
}

// Holds back who wants a flush while somebody waits for room, outside.
Task Device::wait_for_pause(Queue& queue, Gate::Pass& pass, const Io& request) {
  while (parts_->room.paused() && !canary(Canary::full_flush_not_held)) {
    Room::Waiter waiter;
    WaitIo io(queue);
    const Progress progress = parts_->room.hold(waiter, io, request);
    pass.leave();
    IoStatus status = co_await io(progress);
    if (status.ok()) status = co_await enter_again(queue, pass);
    if (!status.ok()) co_return status;
  }
  co_return IoStatus{};
}

Progress Device::write(Io& io, std::uint64_t at, std::span<const std::byte> data,
                       Durability durability) noexcept {
  parts_->statistics.add(io.queue->shard(), Counter::writes);
  parts_->statistics.add(io.queue->shard(), Counter::written_bytes, data.size());
  const bool durable = durability == Durability::when_completed;
  return change(io, {at, data.size()}, {.operation = Operation::write, .durable = durable}, data);
}

Progress Device::zero(Io& io, Range range, bool allocate, Durability durability, ZeroSpeed speed) noexcept {
  parts_->statistics.add(io.queue->shard(), Counter::zeroes);
  parts_->statistics.add(io.queue->shard(), Counter::zeroed_bytes, range.length);
  const bool durable = durability == Durability::when_completed;
  return change(io, range, {.operation = Operation::zero, .durable = durable, .allocate = allocate}, {},
                speed);
}

Progress Device::discard(Io& io, Range range, Durability durability) noexcept {
  parts_->statistics.add(io.queue->shard(), Counter::discards);
  parts_->statistics.add(io.queue->shard(), Counter::discarded_bytes, range.length);
  const bool durable = durability == Durability::when_completed;
  return change(io, range, {.operation = Operation::discard, .durable = durable}, {});
}

Progress Device::flush(Io& io) noexcept {
  Queue& queue = *io.queue;
  Gate::Pass pass = parts_->gate.enter(queue.shard());
  // Nothing has completed since. Who waited here would be whoever just closes a file, too.
  if (!pass && settled_.load(std::memory_order_acquire)) return Progress::done();
  if (!pass) return when_open(queue, io, [this](Io& later) { return flush(later); }).detach(io);
  parts_->statistics.add(queue.shard(), Counter::flushes);
  if (!writable()) return Progress::done();
  if (const IoStatus failed = parts_->failure.status(); !failed.ok()) {
    return counted(queue, Progress::done(failed));
  }
  if (parts_->room.paused()) return flush_after_pause(queue, std::move(pass), io).detach(io);
  return parts_->flusher.join(io);
}

Task Device::flush_after_pause(Queue& queue, Gate::Pass pass, const Io& request) {
  IoStatus status = co_await wait_for_pause(queue, pass, request);
  if (status.ok()) {
    WaitIo io(queue);
    const Progress progress = parts_->flusher.join(io);
    pass.leave();
    status = co_await io(progress);
  }
  if (!status.ok()) parts_->statistics.add(queue.shard(), Counter::errors);
  co_return status;
}

std::optional<RoomStatus> Device::room() const noexcept { return parts_->room.status(); }

void Device::look_for_room() noexcept { parts_->room.look(); }

void Device::hurry(Io& request) noexcept {
  request.impatient = true;
  parts_->room.hurry(request);
}

void Device::give_up_waiting() noexcept { parts_->room.give_up(); }

Progress Device::cache(Io& io, Range range) noexcept {
  Queue& queue = *io.queue;
  Gate::Pass pass = parts_->gate.enter(queue.shard());
  if (!pass) return when_open(queue, io, [=, this](Io& later) { return cache(later, range); }).detach(io);
  if (!range.fits(size())) return Progress::failed(EINVAL);
  return cache_in(queue, std::move(pass), range).detach(io);
}

Task Device::cache_in(Queue& queue, Gate::Pass /*pass*/, Range range) {
  const IoStatus status = co_await parts_->mover.prefetch(queue, range.prefix(k_prefetch_bytes));
  co_return status;
}

Progress Device::extents(Io& io, Range range, Extents& out) noexcept {
  Queue& queue = *io.queue;
  Gate::Pass pass = parts_->gate.enter(queue.shard());
  if (!pass) {
    return when_open(queue, io, [this, range, &out](Io& later) { return extents(later, range, out); })
        .detach(io);
  }
  out.clear();
  if (!range.fits(size())) return Progress::failed(EINVAL);
  if (range.empty()) return Progress::done();
  return extents_in(queue, std::move(pass), range, out).detach(io);
}

Task Device::extents_in(Queue& queue, Gate::Pass /*pass*/, Range range, Extents& out) {
  const IoStatus status = co_await parts_->mover.extents(queue, range, out);
  co_return status;
}

bool Device::view(Queue& queue, Range range, ReadView& view) noexcept {
  view.clear();
  Gate::Pass pass = parts_->gate.enter(queue.shard());
  if (!pass || range.empty() || !range.fits(size())) return false;
  while (!range.empty()) {
    Extents extents;
    const Step step = target_->locate(range, extents);
    if (step.answer != Answer::ready) return false;
    for (const Extent& extent : extents) {
      if (!append_view(extent, view)) return false;
      if (extent.kind == Kind::data) ++(extent.layer == 0 ? view.own_reads : view.below_reads);
    }
    range = range.without_prefix(step.length);
  }
  view.pass = std::move(pass);
  return true;
}

namespace {

bool append_zeros(std::uint64_t length, ReadView& view) noexcept {
  while (length > 0) {
    if (view.pieces.full()) return false;
    const std::uint64_t piece = std::min<std::uint64_t>(length, zeros().size());
    // iovec has no const form; a view is for sending.
    view.pieces.push_back({const_cast<std::byte*>(zeros().data()), piece});
    length -= piece;
  }
  return true;
}

bool append_file(Store& file, ReadView& view) noexcept {
  view.may_fault = true;
  if (std::ranges::find(view.files, &file) != view.files.end()) return true;
  if (view.files.full()) return false;
  view.files.push_back(&file);
  return true;
}

bool append_bytes(Store& store, Range range, ReadView& view) noexcept {
  const auto bytes = store.view(range);
  if (bytes.empty() || view.pieces.full()) return false;
  view.pieces.push_back({const_cast<std::byte*>(bytes.data()), bytes.size()});
  return true;
}

}  // namespace

bool Device::append_view(const Extent& extent, ReadView& view) noexcept {
  if (extent.kind == Kind::zero) return append_zeros(extent.length, view);
  if (extent.kind != Kind::data) return false;
  if (extent.store->views_may_fault() && !append_file(*extent.store, view)) return false;
  if (!extent.store->in_memory()) {
    // Its holes are not asked for: that is a system call, and sending them from the cache is none.
    return append_bytes(*extent.store, {extent.at, extent.length}, view);
  }
  Range rest{extent.at, extent.length};
  while (!rest.empty()) {
    Extents pieces;
    const std::uint64_t covered = extent.store->extents(rest, pieces);
    for (const Extent& piece : pieces) {
      if (piece.kind != Kind::data) {
        if (!append_zeros(piece.length, view)) return false;
        continue;
      }
      if (!append_bytes(*extent.store, {piece.at, piece.length}, view)) return false;
    }
    rest = rest.without_prefix(covered);
  }
  return true;
}

void Device::viewed(Queue& queue, Range range, const ReadView& view) noexcept {
  parts_->statistics.add(queue.shard(), Counter::reads);
  if (view.own_reads != 0) parts_->statistics.add(queue.shard(), Counter::own_reads, view.own_reads);
  if (view.below_reads != 0) parts_->statistics.add(queue.shard(), Counter::below_reads, view.below_reads);
  parts_->statistics.add(queue.shard(), Counter::read_bytes, range.length);
}

DirectWrite Device::direct(Queue& queue, Range range) noexcept {
  Gate::Pass pass = parts_->gate.enter(queue.shard());
  if (!pass || range.empty() || !check_change(range).ok()) return {};
  Plan plan;
  const Step step = target_->plan(range, {.operation = Operation::write}, plan);
  const Move& move = plan.move;
  const bool plain = step.answer == Answer::ready && step.length == range.length && plan.has_move &&
                     !plan.claims_held && move.length() == range.length && move.from == Source::payload;
  if (!plain || !move.store->in_memory()) return {};
  const std::span<std::byte> memory = move.store->memory({move.at, move.body});
  if (memory.empty()) return {};
  return {memory, std::move(pass)};
}

void Device::received(Queue& queue, Range range) noexcept {
  parts_->statistics.add(queue.shard(), Counter::writes);
  parts_->statistics.add(queue.shard(), Counter::written_bytes, range.length);
  parts_->statistics.add(queue.shard(), Counter::stored_bytes, range.length);
  Plan plan;
  // The same answer as direct() had: nothing but a structure change could alter it, and that waits for the lease.
  const Step step = target_->plan(range, {.operation = Operation::write}, plan);
  if (step.answer == Answer::ready && plan.owner != nullptr) plan.owner->commit(plan);
}

std::shared_ptr<Target> Device::target() const noexcept {
  const std::lock_guard lock(target_mutex_);
  return target_;
}

void Device::suspend(Queue& queue) noexcept {
  // Who waits for room is outside, and keeps nothing from being changed.
  (void)run_blocking(queue, [this](Io& io) { return parts_->gate.close(io); });
  (void)run_blocking(queue, [this](Io& io) { return parts_->flusher.pause(io); });
}

bool Device::suspend_unless(Queue& queue, const std::function<bool()>& gives_up) noexcept {
  struct Closed : Io {
    explicit Closed(Queue& owner) noexcept
        : Io(owner, [](Io& self) noexcept { static_cast<Closed&>(self).finished = true; }) {}
    bool finished = false;
  } closed(queue);
  closed.finished = parts_->gate.close(closed).is_done();
  while (!closed.finished) {
    if (queue.poll()) continue;
    if (gives_up() && parts_->gate.withdraw()) {
      parts_->gate.open();
      return false;
    }
    constexpr int between_looks_ms = 100;
    pollfd event{.fd = queue.event_fd(), .events = POLLIN, .revents = 0};
    (void)::poll(&event, 1, between_looks_ms);
  }
  (void)run_blocking(queue, [this](Io& io) { return parts_->flusher.pause(io); });
  return true;
}

void Device::resume() noexcept {
  settled_.store(false, std::memory_order_release);
  parts_->flusher.go_on();
  parts_->gate.open();
  parts_->room.look();  // what was changed may have given room back
}

std::shared_ptr<Target> Device::replace(std::shared_ptr<Target> next, bool read_only) noexcept {
  const std::lock_guard lock(target_mutex_);
  target_.swap(next);
  parts_->room.forget_stores();
  size_.store(target_->size(), std::memory_order_release);
  writable_.store(target_->writable() && !read_only, std::memory_order_release);
  options_.read_only = read_only;
  parts_->mover.use(*target_);
  parts_->flusher.use(*target_);
  parts_->failure.forget();
  parts_->failure.tell(target_.get());
  return next;
}

IoStatus Device::tidy_up(Queue& queue) noexcept {
  if (!writable()) return {};
  if (const IoStatus failed = parts_->failure.status(); !failed.ok()) return failed;
  const IoStatus settled = target_->tidy_up(queue);
  if (!settled.ok()) parts_->failure.set(settled);
  return settled;
}

IoStatus Device::settle(Queue& queue) noexcept {
  if (!writable()) return {};
  if (const IoStatus failed = parts_->failure.status(); !failed.ok()) return failed;
  parts_->statistics.add(queue.shard(), Counter::flushes);
  // Past the gate, which may be closed.
  const IoStatus flushed = run_blocking(queue, [this](Io& io) { return parts_->flusher.join(io); });
  if (!flushed.ok()) return flushed;
  // A chore that began after it shares what the target closes, and may fail.
  (void)run_blocking(queue, [this](Io& io) { return parts_->flusher.pause(io); });
  const IoStatus failed = parts_->failure.status();
  if (failed.ok()) settled_.store(true, std::memory_order_release);
  return failed;
}

IoStatus Device::close(Queue& queue) noexcept {
  if (!writable()) return {};
  if (const IoStatus settled = settle(queue); !settled.ok()) return settled;
  const IoStatus closed = target_->close(queue);
  // Whatever comes now must not touch what was closed.
  if (closed.ok()) parts_->failure.refuse(IoStatus::error(ESHUTDOWN));
  if (!closed.ok()) parts_->failure.set(closed);
  return closed;
}

void Device::took(Queue& queue, RequestKind kind, std::uint64_t ns) noexcept {
  parts_->latencies.add(queue.shard(), kind, ns);
}

LatencySnapshot Device::latencies() const noexcept { return parts_->latencies.snapshot(); }

int Device::failure() const noexcept { return parts_->failure.cause(); }

StatisticsSnapshot Device::statistics() const noexcept { return parts_->statistics.snapshot(); }

}  // namespace oxbow
