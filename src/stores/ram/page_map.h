// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdint>

#include "os/mapping.h"
#include "oxbow/range.h"

namespace oxbow {

inline constexpr std::uint64_t k_ram_page_bytes = 4096;
inline constexpr std::uint64_t k_ram_group_pages = 64;  // the pages of one word of the map
inline constexpr std::uint64_t k_ram_group_bytes = k_ram_page_bytes * k_ram_group_pages;

// So many bytes, rounded up to whole pages.
[[nodiscard]] inline std::uint64_t whole_ram_pages(std::uint64_t bytes) noexcept {
  return (bytes + k_ram_page_bytes - 1) / k_ram_page_bytes * k_ram_page_bytes;
}

// A piece of a range that lies within one group of 64 pages.
struct GroupPiece {
  std::uint64_t group;
  Range range;

  // The pages that the piece touches, and those that it covers wholly. Bit n is the group's page n.
  [[nodiscard]] std::uint64_t touched() const noexcept {
    return mask(range.offset / k_ram_page_bytes, (range.end() - 1) / k_ram_page_bytes + 1);
  }
  [[nodiscard]] std::uint64_t covered() const noexcept {
    const std::uint64_t first = (range.offset + k_ram_page_bytes - 1) / k_ram_page_bytes;
    return mask(first, std::max(first, range.end() / k_ram_page_bytes));
  }

 private:
  [[nodiscard]] std::uint64_t mask(std::uint64_t first, std::uint64_t end) const noexcept {
    const std::uint64_t count = end - first;
    if (count == 0) return 0;
    return (~std::uint64_t{0} >> (k_ram_group_pages - count)) << (first - group * k_ram_group_pages);
  }
};

// The part of a non-empty range that lies in its first group.
[[nodiscard]] inline GroupPiece first_piece(Range range) noexcept {
  const std::uint64_t group = range.offset / k_ram_group_bytes;
  return {group, range.prefix((group + 1) * k_ram_group_bytes - range.offset)};
}

// Pages [first, first + count) of a group.
struct PageRun {
  unsigned first;
  unsigned count;
};
// The lowest run of set bits of a word that isn't 0.
[[nodiscard]] inline PageRun first_run(std::uint64_t word) noexcept {
  const auto first = static_cast<unsigned>(std::countr_zero(word));
  return {first, static_cast<unsigned>(std::countr_one(word >> first))};
}
[[nodiscard]] inline std::uint64_t run_mask(PageRun run) noexcept {
  return (~std::uint64_t{0} >> (k_ram_group_pages - run.count)) << run.first;
}

// One bit per page: whether it is present. Costs memory only where bits were set.
// Thread safety: any thread, except init(), grow() and wipe().
class PageMap {
 public:
  [[nodiscard]] int init(std::uint64_t pages) noexcept;
  [[nodiscard]] int grow(std::uint64_t pages) noexcept;
  // No page is present any more, and the map's own memory is given back.
  [[nodiscard]] int wipe() noexcept;

  // Sees the contents of the pages whose bits it sees.
  [[nodiscard]] std::uint64_t load(std::uint64_t group) const noexcept {
    return word(group).load(std::memory_order_acquire);
  }
  // Publishes what was written to the pages.
  void set(std::uint64_t group, std::uint64_t mask) noexcept {
    word(group).fetch_or(mask, std::memory_order_acq_rel);
  }
  void clear(std::uint64_t group, std::uint64_t mask) noexcept {
    word(group).fetch_and(~mask, std::memory_order_acq_rel);
  }

  [[nodiscard]] bool present(std::uint64_t page) const noexcept {
    return ((load(page / k_ram_group_pages) >> (page % k_ram_group_pages)) & 1U) != 0;
  }
  // The first page from `page` on, below `end`, whose presence isn't `present`; `end` if there is none.
  [[nodiscard]] std::uint64_t run_end(std::uint64_t page, std::uint64_t end, bool present) const noexcept;
  [[nodiscard]] std::uint64_t count_absent(Range range) const noexcept;

 private:
  [[nodiscard]] std::atomic_ref<std::uint64_t> word(std::uint64_t group) const noexcept {
    return std::atomic_ref<std::uint64_t>(words_[group]);
  }
  Mapping mapping_;
  std::uint64_t* words_ = nullptr;
};

}  // namespace oxbow
