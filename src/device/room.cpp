// SPDX-License-Identifier: Apache-2.0
#include "device/room.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <system_error>
#include <utility>

#include "os/fixed.h"
#include "os/log.h"
#include "os/queue.h"
#include "stores/store.h"

namespace oxbow {
namespace {

using std::chrono::milliseconds;

// How often the file systems are asked for what is free; when that grows, one is tried at once.
constexpr milliseconds k_look{100};
// Else, since quotas and others' space don't show there, after these times.
constexpr milliseconds k_first_try{200};
constexpr milliseconds k_last_try{5000};

}  // namespace

Room::Room(const StickyFailure& failure, Options options) : failure_(failure), options_(std::move(options)) {}

Room::~Room() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

// --- the lists ---

void Room::List::push(Waiter& waiter) noexcept {
  waiter.next = nullptr;
  (first_ == nullptr ? first_ : last_->next) = &waiter;
  last_ = &waiter;
}

Room::Waiter* Room::List::pop() noexcept {
  Waiter* const popped = first_;
  if (popped != nullptr) first_ = popped->next;
  return popped;
}

Room::Waiter* Room::List::take(const Io& request) noexcept {
  Waiter* before = nullptr;
  for (Waiter* each = first_; each != nullptr; before = std::exchange(each, each->next)) {
    if (each->request != &request) continue;
    (before == nullptr ? first_ : before->next) = each->next;
    if (last_ == each) last_ = before;
    return each;
  }
  return nullptr;
}

// --- waiting ---

Progress Room::wait(Seat& seat, Io& io, IoStatus lack, Store* full) noexcept {
  const std::lock_guard lock(mutex_);
  if (std::exchange(seat.trying_, false)) --trying_;
  if (giving_up_ || seat.request->impatient || !start_thread()) return Progress::done(lack);
  if (!std::exchange(seat.counted_, true) && ++changes_ == 1) begin_pause(lack);
  seat.store_ = full;
  seat.io = &io;
  lacking_.push(seat);
  return Progress::pending();
}

Progress Room::hold(Waiter& waiter, Io& io, const Io& request) noexcept {
  const std::lock_guard lock(mutex_);
  if (!paused()) return Progress::done();
  if (request.request().impatient) return Progress::done(lack_);
  waiter.io = &io;
  waiter.request = &request.request();
  held_.push(waiter);
  ++flushes_;
  return Progress::pending();
}

void Room::leave(Seat& seat, bool got_room) noexcept {
  const std::lock_guard lock(mutex_);
  seat.counted_ = false;
  if (std::exchange(seat.trying_, false)) --trying_;
  --changes_;
  if (got_room) {
    got_room_ = true;
    interval_ = k_first_try;
    waited_ = milliseconds(0);
    // More and more at a time, as long as there is room.
    try_next();
    try_next();
  } else {
    ++failed_;
  }
  if (changes_ == 0) end_pause();
}

void Room::begin_pause(IoStatus lack) noexcept {
  lack_ = lack;
  since_ = std::chrono::system_clock::now();
  began_ = std::chrono::steady_clock::now();
  interval_ = k_first_try;
  waited_ = milliseconds(0);
  free_bytes_.reset();
  failed_ = 0;
  got_room_ = false;
  paused_.store(true, std::memory_order_release);
  wake_.notify_one();
  if (options_.log == nullptr) return;
  options_.log->write(
      LogLevel::warning, "device.room",
      fmt::format("device {}: paused for lack of room ({}): changes that need room wait for it, "
                  "and flushes with them; reads go on",
                  options_.device, std::strerror(lack.error_number())));
}

void Room::end_pause() noexcept {
  paused_.store(false, std::memory_order_release);
  release_all(held_, {});
  flushes_ = 0;
  if (options_.log == nullptr) return;
  const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
  const std::string failed = failed_ == 0 ? "" : fmt::format("; {} that had waited for it failed", failed_);
  options_.log->write(LogLevel::warning, "device.room",
                      fmt::format("device {}: {} after {:.1f} s{}", options_.device,
                                  got_room_ ? "there is room again, and what waited goes on"
                                            : "nobody waits for room any more",
                                  seconds, failed));
}

void Room::release_all(List& list, IoStatus status) noexcept {
  while (Waiter* const each = list.pop()) each->io->queue->post(*each->io, status);
}

void Room::try_next() noexcept {
  if (const IoStatus failed = failure_.status(); !failed.ok()) return release_all(lacking_, failed);
  Waiter* const next = lacking_.pop();
  if (next == nullptr) return;
  seat_of(*next).trying_ = true;
  ++trying_;
  next->io->queue->post(*next->io, {});
}

void Room::look() noexcept {
  const std::lock_guard lock(mutex_);
  if (trying_ == 0) try_next();
}

void Room::hurry(const Io& request) noexcept {
  if (!paused()) return;
  const std::lock_guard lock(mutex_);
  if (Waiter* const found = lacking_.take(request)) found->io->queue->post(*found->io, lack_);
  if (Waiter* const found = held_.take(request)) {
    --flushes_;
    found->io->queue->post(*found->io, lack_);
  }
}

void Room::give_up() noexcept {
  const std::lock_guard lock(mutex_);
  giving_up_ = true;
  release_all(lacking_, lack_);
}

void Room::forget_stores() noexcept {
  const std::lock_guard lock(mutex_);
  for (Waiter* each = lacking_.first(); each != nullptr; each = each->next) seat_of(*each).store_ = nullptr;
}

std::optional<RoomStatus> Room::status() const noexcept {
  if (!paused()) return std::nullopt;
  const std::lock_guard lock(mutex_);
  if (changes_ == 0) return std::nullopt;
  return RoomStatus{since_, lack_.error_number(), changes_, flushes_};
}

// --- looking for room ---

bool Room::start_thread() noexcept {
  if (!options_.own_thread || thread_.joinable()) return true;
  try {
    thread_ = std::thread([this] { watch(); });
    return true;
  } catch (const std::system_error&) {
    return false;  // nobody would ever look: better to fail
  }
}

void Room::watch() noexcept {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (!paused()) {
      wake_.wait(lock);
      continue;
    }
    wake_.wait_for(lock, k_look);
    if (stopping_ || !paused() || trying_ != 0) continue;
    waited_ += k_look;
    const bool more = more_is_free();
    if (!more && waited_ < interval_) continue;
    interval_ = more ? k_first_try : std::min(2 * interval_, k_last_try);
    waited_ = milliseconds(0);
    try_next();
  }
}

// Whether the file systems of those who wait have more free space than at the last look.
bool Room::more_is_free() noexcept {
  Fixed<const Store*, 8> stores;
  std::uint64_t free = 0;
  for (Waiter* each = lacking_.first(); each != nullptr && !stores.full(); each = each->next) {
    const Store* const store = seat_of(*each).store_;
    if (store == nullptr || std::ranges::find(stores, store) != stores.end()) continue;
    stores.push_back(store);
    free += store->free_bytes().value_or(0);
  }
  const auto before = std::exchange(free_bytes_, free);
  return before && free > *before;
}

}  // namespace oxbow
