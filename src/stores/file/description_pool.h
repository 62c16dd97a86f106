// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <utility>

#include "os/fd.h"

namespace oxbow {

// More open file descriptions of an open file, each lent to one at a time. Linux tells of a failed write-back once per
// open file description: on one that is shared, somebody else's call may take the error that is meant for the caller's
// own bytes. Thread safety: take() from any thread, and the end of what it lent.
class DescriptionPool {
 public:
  // A description that nobody else uses. Thread safety: belongs to one thread; ends before the pool.
  class Lease {
   public:
    Lease(Lease&& other) noexcept
        : busy_(std::exchange(other.busy_, nullptr)), fd_(other.fd_), own_(std::move(other.own_)) {}
    Lease& operator=(Lease&&) = delete;
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() {
      if (busy_ != nullptr) busy_->store(false, std::memory_order_release);
    }
    // Whether there is one: where /proc is missing there is not.
    [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }
    [[nodiscard]] int fd() const noexcept { return fd_; }

   private:
    friend class DescriptionPool;
    Lease(std::atomic<bool>* busy, int fd) noexcept : busy_(busy), fd_(fd) {}
    explicit Lease(UniqueFd own) noexcept : fd_(own.get()), own_(std::move(own)) {}

    std::atomic<bool>* busy_ = nullptr;
    int fd_ = -1;
    UniqueFd own_;  // when all of the pool's were lent
  };

  // `fd`, borrowed, is of a file that is open for writing.
  explicit DescriptionPool(int fd) noexcept : fd_(fd) {}

  [[nodiscard]] Lease take() noexcept;

 private:
  struct Slot {
    std::atomic<bool> busy{false};
    UniqueFd fd;  // whose busy flag is set by the user
  };

  [[nodiscard]] UniqueFd open_again() const noexcept;

  int fd_;
  std::array<Slot, 8> slots_;
};

}  // namespace oxbow
