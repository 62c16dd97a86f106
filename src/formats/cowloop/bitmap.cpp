// SPDX-License-Identifier: Apache-2.0
#include "formats/cowloop/bitmap.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace oxbow::cowloop {
namespace {

// 64 bits from byte `at` on; beyond the bitmap's end they are clear.
std::uint64_t word_at(std::span<const std::byte> bitmap, std::size_t at) noexcept {
  std::uint64_t word = 0;
  std::memcpy(&word, bitmap.data() + at, std::min(sizeof(word), bitmap.size() - at));
  return word;
}

// The first block at or behind `from` whose bit is `wanted`; the number of bits when there is none.
std::uint64_t find(std::span<const std::byte> bitmap, std::uint64_t from, bool wanted) noexcept {
  const std::uint64_t bits = std::uint64_t{bitmap.size()} * 8;
  std::uint64_t mask = ~std::uint64_t{0} << (from % 64);
  for (std::uint64_t at = from / 64 * 64; at < bits; at += 64) {
    const std::uint64_t word = word_at(bitmap, at / 8);
    const std::uint64_t found = (wanted ? word : ~word) & mask;
    if (found != 0) return std::min<std::uint64_t>(bits, at + static_cast<unsigned>(std::countr_zero(found)));
    mask = ~std::uint64_t{0};
  }
  return bits;
}

}  // namespace

std::uint64_t count_set(std::span<const std::byte> bitmap) noexcept {
  std::uint64_t count = 0;
  for (std::size_t at = 0; at < bitmap.size(); at += sizeof(std::uint64_t))
    count += static_cast<unsigned>(std::popcount(word_at(bitmap, at)));
  return count;
}

Range next_run(std::span<const std::byte> bitmap, std::uint64_t from) noexcept {
  const std::uint64_t bits = std::uint64_t{bitmap.size()} * 8;
  const std::uint64_t first = find(bitmap, from, true);
  if (first >= bits) return {bits, 0};
  return {first, find(bitmap, first, false) - first};
}

}  // namespace oxbow::cowloop
