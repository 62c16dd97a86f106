// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/change_log.h"

namespace oxbow {

void ChangeLog::add(Range range, std::uint64_t moved_bytes) noexcept {
  // In one order with take() and with the dirty flags: whoever finds the log overflown is seen by the flush that
  // begins it anew.
  if (overflowed_.load(std::memory_order_seq_cst)) return;
  const std::lock_guard lock(mutex_);
  if (!ranges_.empty() && ranges_.back() == range) return;  // rewritten, as the head of a log is
  if (ranges_.full() || moved_ + moved_bytes > native::k_ring_data_bytes) {
    overflowed_.store(true, std::memory_order_seq_cst);
    return;
  }
  ranges_.push_back(range);
  moved_ += moved_bytes;
}

bool ChangeLog::take(Ranges& out) noexcept {
  const std::lock_guard lock(mutex_);
  out = ranges_;
  ranges_.clear();
  moved_ = 0;
  return !overflowed_.exchange(false, std::memory_order_seq_cst);
}

}  // namespace oxbow
