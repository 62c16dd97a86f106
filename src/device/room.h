// SPDX-License-Identifier: Apache-2.0
#pragma once

// What happens when a disk is full. A change that finds no room doesn't fail, but takes a seat here:
//
//   change ──ENOSPC──► waits ──a look for room──► is tried again ──► goes on, and lets two others try
//                        ▲                              │
//                        └───────────ENOSPC─────────────┘
//
// Somebody who waits holds nothing of the target: no claim, no plan; it is planned again each time. So reads,
// changes that need no room, discards above all, and whatever replaces the target go on beside it. One alone
// is tried at a time until there is room, since each attempt on a full disk is expensive.
//
// As long as anybody waits the device is paused, and flushes that are asked for are held back: who writes sees
// one order, and a barrier on a full disk may fail for lack of room (delayed allocation), which is for good.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "device/failure.h"
#include "device/on_full.h"
#include "os/io.h"

namespace oxbow {

class Log;
class Store;

// The waiting for room of one device. Thread safety: from any thread; destruction when nobody waits.
class Room {
 public:
  struct Options {
    OnFull on_full = OnFull::error;
    std::string device;      // its name, for the log
    Log* log = nullptr;      // borrowed; null: silent
    bool own_thread = true;  // that looks for room while somebody waits; else look() is all there is
  };

  // Somebody who waits, in one of the lists below. Thread safety: guarded by the room's mutex.
  struct Waiter {
    Waiter* next = nullptr;
    Io* io = nullptr;             // posted at the end of the wait
    const Io* request = nullptr;  // on whose behalf
  };

  // The place of one change, from its beginning to its end; costs nothing until it waits.
  // Thread safety: belongs to the change; guarded by the room's mutex while it waits.
  class Seat : private Waiter {
   public:
    // `whose` is the request that it belongs to: if that is impatient (os/io.h) it doesn't wait.
    Seat(Room& room, const Io& whose) noexcept : room_(room) { request = &whose.request(); }
    Seat(const Seat&) = delete;
    Seat& operator=(const Seat&) = delete;
    Seat(Seat&&) = delete;
    Seat& operator=(Seat&&) = delete;
    ~Seat() {
      if (counted_) room_.leave(*this, false);
    }
    // What lacked room has been done.
    void has_room() noexcept {
      if (counted_) room_.leave(*this, true);
    }

   private:
    friend class Room;
    Room& room_;
    Store* store_ = nullptr;  // that is full, as far as known
    bool counted_ = false;
    bool trying_ = false;
  };

  // `failure` is borrowed: once it is set nobody waits.
  Room(const StickyFailure& failure, Options options);
  ~Room();
  Room(const Room&) = delete;
  Room& operator=(const Room&) = delete;
  Room(Room&&) = delete;
  Room& operator=(Room&&) = delete;

  // Whether a change that failed like that is to wait.
  [[nodiscard]] bool awaits(IoStatus failed) const noexcept {
    const bool room = failed.error_number() == ENOSPC || failed.error_number() == EDQUOT;
    return room && options_.on_full == OnFull::pause && failure_.cause() == 0;
  }
  // Success: try again. Else the error to fail with, which is `lack` unless the device failed meanwhile.
  // `full` is the store without room, if known.
  [[nodiscard]] Progress wait(Seat& seat, Io& io, IoStatus lack, Store* full) noexcept;

  // Whether anybody waits for room: then whoever wants a flush has to hold().
  [[nodiscard]] bool paused() const noexcept { return paused_.load(std::memory_order_acquire); }
  // Success once nobody waits for room (look again), ENOSPC for an impatient request. `waiter` is the caller's until
  // then.
  [[nodiscard]] Progress hold(Waiter& waiter, Io& io, const Io& request) noexcept;

  // Lets one that waits try again, if none is trying.
  void look() noexcept;
  // The request, which is impatient by now, waits no longer.
  void hurry(const Io& request) noexcept;
  // Whoever waits fails for lack of room, now and from now on.
  void give_up() noexcept;
  // The stores may go away; for whoever waits others may be what counts.
  void forget_stores() noexcept;

  // Nothing while nobody waits.
  [[nodiscard]] std::optional<RoomStatus> status() const noexcept;

 private:
  // Of those in lacking_, which are all seats.
  [[nodiscard]] static Seat& seat_of(Waiter& waiter) noexcept { return static_cast<Seat&>(waiter); }

  // Those who wait, in order. Thread safety: guarded by the room's mutex.
  class List {
   public:
    void push(Waiter& waiter) noexcept;
    [[nodiscard]] Waiter* pop() noexcept;
    [[nodiscard]] Waiter* take(const Io& request) noexcept;
    [[nodiscard]] Waiter* first() const noexcept { return first_; }

   private:
    Waiter* first_ = nullptr;
    Waiter* last_ = nullptr;
  };

  void leave(Seat& seat, bool got_room) noexcept;
  void begin_pause(IoStatus lack) noexcept;
  void end_pause() noexcept;
  void try_next() noexcept;
  void release_all(List& list, IoStatus status) noexcept;
  [[nodiscard]] bool start_thread() noexcept;
  void watch() noexcept;
  [[nodiscard]] bool more_is_free() noexcept;

  const StickyFailure& failure_;
  const Options options_;
  std::atomic<bool> paused_{false};  // written under the mutex

  mutable std::mutex mutex_;
  // Guarded by it, down to the thread.
  List lacking_;             // seats that wait
  List held_;                // flushes that wait for them to be gone
  std::size_t changes_ = 0;  // seats that wait or try
  std::size_t flushes_ = 0;
  std::size_t trying_ = 0;
  std::size_t failed_ = 0;  // in this pause: that left without room
  bool got_room_ = false;   // in this pause: somebody did
  bool giving_up_ = false;
  bool stopping_ = false;
  IoStatus lack_;
  std::chrono::system_clock::time_point since_;
  std::chrono::steady_clock::time_point began_;
  std::chrono::milliseconds interval_{0};
  std::chrono::milliseconds waited_{0};
  std::optional<std::uint64_t> free_bytes_;  // at the last look
  std::condition_variable wake_;
  std::thread thread_;
};

}  // namespace oxbow
