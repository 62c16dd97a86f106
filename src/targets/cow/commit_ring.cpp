// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/commit_ring.h"

#include <algorithm>

namespace oxbow {

bool CommitRing::has_place(std::uint64_t bytes) noexcept {
  if (position_ + bytes <= ready_) return true;
  if (ready_ > 0) wanted_ = std::max(wanted_, std::min(2 * ready_, growth_.most_bytes));
  return false;
}

void CommitRing::full_flush_done(bool would_fit) noexcept {
  covered_ = covering_;
  position_ = 0;
  alive_ = false;
  if (!would_fit || !on() || ++small_flushes_ < growth_.small_flushes) return;
  wanted_ = std::max(wanted_, std::min(growth_.first_bytes, growth_.most_bytes));
}

Range CommitRing::unready() const noexcept {
  const std::uint64_t end = std::min(wanted_, growth_.most_bytes);
  if (ready_ >= end) return {ready_, 0};
  return {ready_, std::min(growth_.step_bytes, end - ready_)};
}

}  // namespace oxbow
