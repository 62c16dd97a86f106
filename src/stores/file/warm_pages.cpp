// SPDX-License-Identifier: Apache-2.0
#include "stores/file/warm_pages.h"

#include <algorithm>

namespace oxbow {
namespace {

constexpr std::uint64_t k_groups_per_region = (2U << 20) / k_ram_group_bytes;

std::uint64_t pages_of(std::uint64_t bytes) noexcept {
  return (bytes + k_ram_page_bytes - 1) / k_ram_page_bytes;
}

}  // namespace

int WarmPages::init(std::uint64_t size_bytes) noexcept {
  size_bytes_ = size_bytes;
  // Whole regions, so that each can be looked at.
  constexpr std::uint64_t k_region_pages = k_groups_per_region * k_ram_group_pages;
  return pages_.init((pages_of(size_bytes) + k_region_pages - 1) / k_region_pages * k_region_pages);
}

bool WarmPages::warm(Range range) const noexcept {
  const std::uint64_t end = pages_of(range.end());
  return pages_.run_end(range.offset / k_ram_page_bytes, end, true) == end;
}

void WarmPages::note(Range range) noexcept {
  while (!range.empty()) {
    const GroupPiece piece = first_piece(range);
    const std::uint64_t known = pages_.load(piece.group);
    if ((piece.touched() & ~known) != 0) {
      const std::uint64_t first = piece.group / k_groups_per_region * k_groups_per_region;
      bool fresh = known == 0;
      for (std::uint64_t i = first; fresh && i < first + k_groups_per_region; ++i)
        fresh = pages_.load(i) == 0;
      if (fresh) regions_.fetch_add(1, std::memory_order_relaxed);
      pages_.set(piece.group, piece.touched());
    }
    range = range.without_prefix(piece.range.length);
  }
}

void WarmPages::forget(Range range) noexcept {
  if (range.offset == 0 && range.length == size_bytes_) regions_.store(0, std::memory_order_relaxed);
  while (!range.empty()) {
    const GroupPiece piece = first_piece(range);
    if ((pages_.load(piece.group) & piece.touched()) != 0) pages_.clear(piece.group, piece.touched());
    range = range.without_prefix(piece.range.length);
  }
}

void WarmPages::forget_around(Range range) noexcept {
  const std::uint64_t first = range.offset / k_neighbourhood_bytes * k_neighbourhood_bytes;
  const std::uint64_t end =
      (range.end() + k_neighbourhood_bytes - 1) / k_neighbourhood_bytes * k_neighbourhood_bytes;
  forget({first, std::min(end, size_bytes_) - first});
}

bool WarmPages::due(std::uint64_t bytes) noexcept {
  const std::uint64_t sum = relied_on_.load(std::memory_order_relaxed) + bytes;
  const bool due = sum >= k_bytes_per_test;
  relied_on_.store(due ? 0 : sum, std::memory_order_relaxed);
  return due;
}

}  // namespace oxbow
