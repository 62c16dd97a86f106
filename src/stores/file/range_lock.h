// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <mutex>

#include "os/io.h"
#include "oxbow/range.h"

namespace oxbow {

// Keeps apart the operations on overlapping ranges of one file: any number of shared claims, or one exclusive
// one. First come, first served: a claim waits for every earlier one in its way, also for those that wait
// themselves, so nobody starves. Costs a walk over the claims that are held or waiting. Thread safety: any
// thread.
class RangeLock {
 public:
  enum class Mode : std::uint8_t { shared, exclusive };

  // A claim to be acquired once; given up when destroyed. Stays at its place, and must not be destroyed while
  // it waits. Thread safety: one thread, the one of the Io's queue.
  class Claim {
   public:
    Claim(RangeLock& lock, Range range, Mode mode) noexcept : lock_(lock), range_(range), mode_(mode) {}
    Claim(const Claim&) = delete;
    Claim& operator=(const Claim&) = delete;
    Claim(Claim&&) = delete;
    Claim& operator=(Claim&&) = delete;
    ~Claim() {
      if (acquired_) lock_.release(*this);
    }

    // Done when it is held; pending when `io` will be told. Never fails.
    Progress acquire(Io& io) noexcept {
      acquired_ = true;
      return lock_.acquire(*this, io);
    }

   private:
    friend class RangeLock;
    [[nodiscard]] bool conflicts(const Claim& other) const noexcept {
      return (mode_ == Mode::exclusive || other.mode_ == Mode::exclusive) &&
             range_.offset < other.range_.end() && other.range_.offset < range_.end();
    }

    RangeLock& lock_;
    Range range_;
    Mode mode_;
    bool acquired_ = false;
    // Guarded by the lock's mutex.
    Claim* earlier_ = nullptr;
    Claim* later_ = nullptr;
    unsigned in_the_way_ = 0;  // earlier claims that conflict
    Io* waiting_ = nullptr;
  };

  RangeLock() noexcept = default;
  RangeLock(const RangeLock&) = delete;
  RangeLock& operator=(const RangeLock&) = delete;
  RangeLock(RangeLock&&) = delete;
  RangeLock& operator=(RangeLock&&) = delete;
  ~RangeLock() = default;

 private:
  Progress acquire(Claim& claim, Io& io) noexcept;
  void release(Claim& claim) noexcept;

  std::mutex mutex_;
  Claim* first_ = nullptr;  // in the order of arrival, held and waiting; guarded by mutex_
  Claim* last_ = nullptr;   // guarded by mutex_
};

}  // namespace oxbow
