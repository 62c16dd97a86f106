// SPDX-License-Identifier: Apache-2.0
#pragma once

// Group commit. A flush that is asked for joins the next one that has not captured yet; exactly one runs at a
// time, on one queue, so that a barrier never holds up a connection:
//
//   join() ──► waiting ──(runs: takes all that wait)──► capture → round 1: writes, barriers → round 2 →
//          flushed ──► posted to their queues ──► nobody waits: chores of the targets
//
// A waiter that arrives while one runs has to wait for the next, because its writes may have missed the
// capture.

#include <memory>
#include <mutex>
#include <thread>

#include "device/failure.h"
#include "os/task.h"
#include "targets/target.h"

namespace oxbow {

class Mover;
class Statistics;

// Runs the flushes of one device. Thread safety: join() from any thread; destruction when nothing is in
// flight.
class Flusher {
 public:
  // On a queue that somebody else polls; a null queue means a thread of its own.
  Flusher(Target& target, Mover& mover, StickyFailure& failure, Statistics& statistics, Queue* queue);
  ~Flusher();
  Flusher(const Flusher&) = delete;
  Flusher& operator=(const Flusher&) = delete;
  Flusher(Flusher&&) = delete;
  Flusher& operator=(Flusher&&) = delete;

  // Pending: completes on waiter's queue when everything that completed before this call is durable, or with
  // the error that makes the device fail.
  Progress join(Io& waiter) noexcept;

  // Posts `io` when nothing runs and nobody waits; nothing begins by itself until go_on(). Only while nobody joins.
  Progress pause(Io& io) noexcept;
  void go_on() noexcept;
  // Only while paused.
  void use(Target& target) noexcept { target_ = &target; }

 private:
  [[nodiscard]] Io* take_waiting() noexcept;
  [[nodiscard]] bool finish() noexcept;
  [[nodiscard]] Task run_chores(Queue& queue);
  [[nodiscard]] bool disturbed() noexcept;
  [[nodiscard]] bool running() noexcept;
  static void answer(Io* served, IoStatus status) noexcept;
  [[nodiscard]] Task run(Queue& queue);
  [[nodiscard]] Task flush_once(Queue& queue, bool& more);
  [[nodiscard]] Task carry_out(Queue& queue, FlushPlan& plan);
  [[nodiscard]] Task read_back(Queue& queue, FlushPlan& plan);
  [[nodiscard]] Task carry_out(Queue& queue, const FlushPlan::Round& round, bool barrier);
  void serve() noexcept;

  // Starts run() on the flush queue, from whichever thread the first waiter came.
  struct Kick : Io {
    explicit Kick(Flusher& flusher, Queue& owner) noexcept;
    Flusher& flusher;
  };
  struct Finished : Io {
    explicit Finished(Queue& owner) noexcept : Io(owner, [](Io&) noexcept {}) {}
  };

  Target* target_;
  Mover& mover_;
  StickyFailure& failure_;
  Statistics& statistics_;
  std::unique_ptr<Queue> own_queue_;
  Queue& queue_;
  Kick kick_;
  Finished finished_;

  std::mutex mutex_;
  Io* waiting_ = nullptr;  // guarded by mutex_; newest first
  bool running_ = false;   // guarded by mutex_: a run is under way or kicked
  bool paused_ = false;    // guarded by mutex_
  Io* pausing_ = nullptr;  // guarded by mutex_: told when nothing runs
  std::atomic<bool> stop_{false};
  std::jthread thread_;
};

}  // namespace oxbow
