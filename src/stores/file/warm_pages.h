// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "oxbow/range.h"
#include "stores/ram/page_map.h"

namespace oxbow {

// What is believed to be in the page cache of a file, one bit per 4 KiB page: set when a read or write went
// through it without waiting for the medium. The kernel tells nobody what it drops, so a belief can be wrong;
// that costs whoever relies on it a page fault and never a byte. Now and then one is put to the test (due()),
// and where it was wrong the whole neighbourhood is forgotten: what memory is short of goes in swathes.
// Thread safety: any thread, except init().
class WarmPages {
 public:
  // A test for so many bytes relied on: one in 64 small requests, and each of the largest.
  static constexpr std::uint64_t k_bytes_per_test = 256U << 10;
  static constexpr std::uint64_t k_neighbourhood_bytes = 64U << 20;

  // For a file of `size_bytes`. Returns 0 or the errno value.
  [[nodiscard]] int init(std::uint64_t size_bytes) noexcept;

  // All pages that the range touches are believed to be in the cache.
  [[nodiscard]] bool warm(Range range) const noexcept;
  void note(Range range) noexcept;
  void forget(Range range) noexcept;
  // The neighbourhoods that the range touches.
  void forget_around(Range range) noexcept;
  void forget_all() noexcept { forget({0, size_bytes_}); }

  // Counts `bytes` as relied on. Whether the belief has to be put to the test before.
  [[nodiscard]] bool due(std::uint64_t bytes) noexcept;

  // How many 2 MiB regions had a page noted since everything was forgotten last: each may cost whoever maps
  // the file a page table of 4 KiB.
  [[nodiscard]] std::uint64_t regions() const noexcept { return regions_.load(std::memory_order_relaxed); }

 private:
  PageMap pages_;
  std::uint64_t size_bytes_ = 0;
  // Both may lose counts of threads that race: they are no more than a schedule and a rough sum.
  std::atomic<std::uint64_t> relied_on_{0};
  std::atomic<std::uint64_t> regions_{0};
};

}  // namespace oxbow
