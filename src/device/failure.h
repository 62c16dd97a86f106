// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cerrno>

#include "oxbow/io_status.h"

namespace oxbow {

// The sticky error: after the first failed barrier or metadata write nobody knows what is durable, so every
// change and flush fails until the device is opened again. Thread safety: from any thread.
class StickyFailure {
 public:
  void set(IoStatus cause) noexcept {
    int expected = 0;
    number_.compare_exchange_strong(expected, cause.error_number(), std::memory_order_acq_rel);
  }
  // The first error that was set, or 0.
  [[nodiscard]] int cause() const noexcept { return number_.load(std::memory_order_acquire); }
  // What a change or flush is answered: success while nothing failed.
  [[nodiscard]] IoStatus status() const noexcept { return cause() == 0 ? IoStatus{} : IoStatus::error(EIO); }

 private:
  std::atomic<int> number_{0};
};

}  // namespace oxbow
