// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which clusters are being written without a claim. Whoever overwrites counts itself in BEFORE it looks for claims;
// whoever wants nobody to write claims BEFORE it looks here: so one of the two sees the other. Counters stand for 16
// neighbours each, folded modulo 4,096: a false hit costs a full flush, a miss cannot be.

#include <array>
#include <atomic>
#include <cstdint>

namespace oxbow {

// The overwrites in flight of one layer. Thread safety: from any thread.
class Overwrites {
 public:
  void begin(std::uint64_t first, std::uint64_t count) noexcept {
    for_groups(first, count,
               [this](std::uint64_t slot) { in_flight_[slot].fetch_add(1, std::memory_order_seq_cst); });
  }
  // Of what began with `first`; may be told in parts if these are whole groups.
  void end(std::uint64_t first, std::uint64_t count) noexcept {
    for_groups(first, count,
               [this](std::uint64_t slot) { in_flight_[slot].fetch_sub(1, std::memory_order_seq_cst); });
  }
  // Whether there may be one in [first, first + count).
  [[nodiscard]] bool any(std::uint64_t first, std::uint64_t count) const noexcept {
    bool found = false;
    for_groups(first, count, [&](std::uint64_t slot) {
      found = found || in_flight_[slot].load(std::memory_order_seq_cst) != 0;
    });
    return found;
  }

 private:
  static constexpr std::uint64_t k_group = 16;
  static constexpr std::uint64_t k_slots = 4096;

  template <typename Visit>
  static void for_groups(std::uint64_t first, std::uint64_t count, Visit&& visit) noexcept {
    if (count == 0) return;
    const std::uint64_t last = (first + count - 1) / k_group;
    for (std::uint64_t group = first / k_group; group <= last; ++group) visit(group % k_slots);
  }

  std::array<std::atomic<std::uint32_t>, k_slots> in_flight_{};
};

}  // namespace oxbow
