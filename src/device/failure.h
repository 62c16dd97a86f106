// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cerrno>

#include "oxbow/io_status.h"
#include "targets/target.h"

namespace oxbow {

// The sticky error: after the first failed barrier or metadata write nobody knows what is durable, so every
// change and flush fails until the device is opened again. Thread safety: from any thread; tell() and forget() only
// while no request is in flight.
class StickyFailure {
 public:
  // Whom to tell, before anybody else hears of it.
  void tell(Target* target) noexcept { target_ = target; }

  void set(IoStatus cause) noexcept {
    if (this->cause() == 0 && target_ != nullptr) target_->failed();
    refuse(cause);
  }
  // Changes and flushes are refused from now on, without anything having failed.
  void refuse(IoStatus cause) noexcept {
    int expected = 0;
    number_.compare_exchange_strong(expected, cause.error_number(), std::memory_order_acq_rel);
  }
  void forget() noexcept { number_.store(0, std::memory_order_release); }

  // The first error that was set, or 0.
  [[nodiscard]] int cause() const noexcept { return number_.load(std::memory_order_acquire); }
  // What a change or flush is answered: success while nothing failed.
  [[nodiscard]] IoStatus status() const noexcept { return cause() == 0 ? IoStatus{} : IoStatus::error(EIO); }

 private:
  std::atomic<int> number_{0};
  Target* target_ = nullptr;
};

}  // namespace oxbow
