// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/worker.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>
#include <string>
#include <system_error>
#include <utility>

namespace oxbow::nbd {
namespace {

using Clock = Connection::Clock;

// Connections that are asked again on a guess may not keep the others from being looked at for longer.
constexpr unsigned k_turns_without_look = 8;
constexpr std::size_t k_events = 64;

}  // namespace

// A connection among the others. Thread safety: the worker's.
struct Worker::Served {
  Served(Worker& its_worker, std::unique_ptr<Connection> its_connection)
      : worker(&its_worker), connection(std::move(its_connection)) {}
  Worker* worker;
  std::unique_ptr<Connection> connection;
  std::list<Served>::iterator self;
  std::uint32_t watched = 0;  // what epoll looks for
  bool in_epoll = false;
  bool ready = false;    // in ready_
  bool starved = false;  // in starved_
  bool readable = false;
  bool hung_up = false;
  bool left = false;  // the client sends nothing more
};

Worker::Worker(const Options& options)
    : options_(options), epoll_(::epoll_create1(EPOLL_CLOEXEC)), spin_(options.poll_limit) {
  if (!epoll_.valid()) throw std::system_error(errno, std::generic_category(), "epoll");
  epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, queue_.event_fd(), &event) != 0) {
    throw std::system_error(errno, std::generic_category(), "epoll");
  }
}

Result<std::unique_ptr<Worker>> Worker::start(const Options& options) {
  try {
    std::unique_ptr<Worker> worker(new Worker(options));
    worker->thread_ = std::thread([self = worker.get()] { self->run(); });
    return worker;
  } catch (const std::system_error& failure) {
    return std::unexpected(Error("cannot serve NBD", "thread", failure.what()));
  }
}

Worker::~Worker() {
  stop(Stop::break_off);
  if (thread_.joinable()) thread_.join();
}

// --- from other threads ---

void Worker::wake() noexcept { (void)::eventfd_write(queue_.event_fd(), 1); }

void Worker::adopt(std::unique_ptr<Connection> connection) {
  {
    const std::scoped_lock lock(mutex_);
    adopted_.push_back(std::move(connection));
    count_.fetch_add(1, std::memory_order_relaxed);
  }
  any_adopted_.store(true, std::memory_order_release);
  wake();
}

void Worker::stop(Stop how) noexcept {
  Stop before = stop_.load(std::memory_order_relaxed);
  while (before < how && !stop_.compare_exchange_weak(before, how, std::memory_order_release)) {
  }
  wake();
}

// --- the thread ---

void Worker::run() noexcept {
  while (true) {
    // Looking at the queue takes back its wake-up, so whatever else that was meant for comes after it.
    if (std::exchange(completions_, false)) (void)queue_.poll();
    take_adopted();
    apply_stop();
    run_ready();
    feed_starved();
    if (stopped_ != Stop::no && served_.empty() && !any_adopted_.load(std::memory_order_acquire)) break;
    queue_.submit();
    wait();
    expire();
  }
  ended_.store(true, std::memory_order_release);
  if (options_.tell_end_fd >= 0) (void)::eventfd_write(options_.tell_end_fd, 1);
}

void Worker::take_adopted() noexcept {
  if (!any_adopted_.load(std::memory_order_relaxed)) return;
  std::vector<std::unique_ptr<Connection>> adopted;
  {
    const std::scoped_lock lock(mutex_);
    adopted.swap(adopted_);
    any_adopted_.store(false, std::memory_order_relaxed);
  }
  for (auto& each : adopted) {
    try {
      take_in(std::move(each));
    } catch (const std::bad_alloc&) {
      log_end("memory is short");
      count_.fetch_sub(1, std::memory_order_relaxed);
    }
  }
}

void Worker::take_in(std::unique_ptr<Connection> connection) {
  // Room for all, so that nothing later on can fail for want of it.
  for (auto* list : {&ready_, &turn_, &haggling_, &starved_}) {
    if (list->capacity() <= served_.size()) list->reserve(2 * served_.size() + 16);
  }
  Served& served = served_.emplace_back(*this, std::move(connection));
  served.self = std::prev(served_.end());
  served.connection->begin(queue_, {[](void* context) noexcept {
                                      auto& woken = *static_cast<Served*>(context);
                                      woken.worker->make_ready(woken);
                                    },
                                    &served});
  if (stopped_ != Stop::no) served.connection->stop(stopped_);
  haggling_.push_back(&served);
  served.readable = true;
  make_ready(served);
}

void Worker::apply_stop() noexcept {
  const Stop wanted = stop_.load(std::memory_order_acquire);
  if (wanted == stopped_) return;
  stopped_ = wanted;
  for (Served& each : served_) {
    each.connection->stop(wanted);
    each.readable = true;  // whether more comes decides about the end
    make_ready(each);
  }
}

void Worker::make_ready(Served& served) noexcept {
  if (std::exchange(served.ready, true)) return;
  ready_.push_back(&served);
}

// Those who wait for buffers look again when there are fewer about.
void Worker::feed_starved() noexcept {
  if (starved_.empty() || queue_.buffers().lent_bytes() >= lent_when_starved_bytes_) return;
  for (Served* each : starved_) {
    each->starved = false;
    make_ready(*each);
  }
  starved_.clear();
}

void Worker::run_ready() noexcept {
  turn_.swap(ready_);
  for (Served* each : turn_) step(*each);
  turn_.clear();
}

void Worker::step(Served& served) noexcept {
  served.ready = false;
  if (served.left) served.connection->left();
  Interest wanted = served.connection->step(std::exchange(served.readable, false));
  if (served.hung_up && !wanted.ended && !wanted.receive) {
    // Nothing more can be sent or received: only the device is waited for.
    unwatch(served);
    served.connection->hung_up();
    wanted = served.connection->step(false);
  }
  if (wanted.ended) return remove(served);
  if (wanted.starved) {
    if (!std::exchange(served.starved, true)) starved_.push_back(&served);
    lent_when_starved_bytes_ = queue_.buffers().lent_bytes();
  }
  if (!served.connection->deadline()) std::erase(haggling_, &served);
  if (!served.hung_up || wanted.receive) watch(served, wanted);
  if (wanted.again) {
    served.readable = true;
    make_ready(served);
  }
}

void Worker::watch(Served& served, const Interest& wanted) noexcept {
  // A client that leaves is noticed also while nothing is received from it.
  const std::uint32_t events =
      (wanted.receive ? EPOLLIN : 0U) | (wanted.send ? EPOLLOUT : 0U) | (served.left ? 0U : EPOLLRDHUP);
  if (served.in_epoll && events == served.watched) return;
  epoll_event event{.events = events, .data = {.ptr = &served}};
  const int operation = served.in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  if (::epoll_ctl(epoll_.get(), operation, served.connection->fd(), &event) != 0) {
    // The kernel has no memory for it, so nobody would ever look at it again.
    log_end("memory is short");
    served.connection->stop(Stop::break_off);
    make_ready(served);
    return;
  }
  served.in_epoll = true;
  served.watched = events;
}

void Worker::unwatch(Served& served) noexcept {
  if (!std::exchange(served.in_epoll, false)) return;
  (void)::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, served.connection->fd(), nullptr);
}

void Worker::remove(Served& served) noexcept {
  unwatch(served);
  std::erase(haggling_, &served);
  if (served.starved) std::erase(starved_, &served);
  log_end(served.connection->why_ended());
  served_.erase(served.self);
  count_.fetch_sub(1, std::memory_order_relaxed);
}

void Worker::log_end(std::string_view why) const noexcept {
  if (why.empty() || options_.log == nullptr) return;
  options_.log->write(LogLevel::info, "nbd.client", "a client was let go: " + std::string(why));
}

void Worker::expire() noexcept {
  if (haggling_.empty()) return;
  const auto now = Clock::now();
  for (Served* each : haggling_) {
    if (now < each->connection->deadline().value_or(Clock::time_point::max())) continue;
    each->connection->expire();
    make_ready(*each);
  }
}

// --- waiting ---

int Worker::sleep_limit_ms() const noexcept {
  if (haggling_.empty()) return -1;
  auto until = Clock::time_point::max();
  for (const Served* each : haggling_) {
    until = std::min(until, each->connection->deadline().value_or(Clock::time_point::max()));
  }
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, 60'000));
}

void Worker::wait() noexcept {
  if (!ready_.empty()) {
    if (++turns_without_look_ < k_turns_without_look) return;
    (void)look(0);
    return;
  }
  if (spin()) return;
  if (options_.poll_limit.count() == 0) {
    (void)look(sleep_limit_ms());
    return;
  }
  const auto before = Clock::now();
  (void)look(sleep_limit_ms());
  spin_.slept(Clock::now() - before);
}

// Looks for work without sleeping, as long as that has paid lately. Whether there is some.
bool Worker::spin() noexcept {
  if (spin_.now().count() == 0) return false;
  const auto until = Clock::now() + spin_.now();
  do {
    if (look(0)) return true;
  } while (Clock::now() < until);
  return false;
}

// Asks the kernel for news, and waits that long for it (-1: for ever). Whether there was any.
bool Worker::look(int timeout_ms) noexcept {
  turns_without_look_ = 0;
  std::array<epoll_event, k_events> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.ptr == nullptr) {
      completions_ = true;
      continue;
    }
    auto& served = *static_cast<Served*>(event.data.ptr);
    served.readable = served.readable || (event.events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0;
    served.left = served.left || (event.events & EPOLLRDHUP) != 0;
    served.hung_up = served.hung_up || (event.events & (EPOLLHUP | EPOLLERR)) != 0;
    make_ready(served);
  }
  return count > 0;
}

}  // namespace oxbow::nbd
