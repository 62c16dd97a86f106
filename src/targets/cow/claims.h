// SPDX-License-Identifier: Apache-2.0
#pragma once

// Who may change the state of a cluster. A claim is one bit per cluster, folded modulo 65,536: two clusters
// that share a bit keep each other waiting, which is rare and harmless; 8 KiB serve any device. Claims are
// held from planning until the plan ends, so a waiter waits for one write at most.

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>

#include "os/io.h"

namespace oxbow {

// The claims of one layer. Thread safety: from any thread.
class Claims {
 public:
  static constexpr std::uint64_t k_slots = 65536;

  // Claims clusters from `first` on, until one is taken or `count` (at most k_slots) are had. Returns how
  // many.
  [[nodiscard]] std::uint64_t take(std::uint64_t first, std::uint64_t count) noexcept;
  // Ends the claims on [first, first + count) and wakes those who wait for one of them.
  void drop(std::uint64_t first, std::uint64_t count) noexcept;

  // How many clusters from `first` on, at most `count`, nobody has a claim on now. Whoever finds a cluster
  // unclaimed AFTER reading its state knows that the page of that state has been marked dirty, because a
  // claim ends after that.
  [[nodiscard]] std::uint64_t unclaimed(std::uint64_t first, std::uint64_t count) const noexcept;

  // Answers done when `cluster` looks free; else `io` is posted once it was dropped. Either way: try again.
  [[nodiscard]] Progress wait(Io& io, std::uint64_t cluster) noexcept;

 private:
  void release_bits(std::uint64_t word, std::uint64_t mask) noexcept;
  [[nodiscard]] bool is_taken(std::uint64_t slot) const noexcept;

  std::array<std::atomic<std::uint64_t>, k_slots / 64> taken_{};
  std::atomic<std::uint32_t> waiters_{0};
  std::mutex mutex_;
  Io* waiting_ = nullptr;  // guarded by mutex_; Io::at is the slot
};

}  // namespace oxbow
