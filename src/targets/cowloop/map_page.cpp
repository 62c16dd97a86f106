// SPDX-License-Identifier: Apache-2.0
#include "targets/cowloop/map_page.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "os/canary.h"

namespace oxbow::cowloop {
namespace {

using native::k_clusters_per_leaf;
using native::k_words_per_leaf;
using native::LeafWords;

constexpr std::uint64_t k_leaf_bytes = k_clusters_per_leaf / 8;  // of bitmap
constexpr std::uint64_t k_leaves_per_map_page = k_map_page_blocks / k_clusters_per_leaf;
constexpr std::uint64_t k_even_bits = 0x5555555555555555;

// Bit i of the lower half goes to bits 2i and 2i + 1: a block is data or absent.
constexpr std::uint64_t spread(std::uint32_t bits) noexcept {
  std::uint64_t x = bits;
  x = (x | x << 16) & 0x0000FFFF0000FFFF;
  x = (x | x << 8) & 0x00FF00FF00FF00FF;
  x = (x | x << 4) & 0x0F0F0F0F0F0F0F0F;
  x = (x | x << 2) & 0x3333333333333333;
  x = (x | x << 1) & k_even_bits;
  return x | x << 1;
}
constexpr std::uint32_t gather(std::uint64_t x) noexcept {
  x &= k_even_bits;
  x = (x | x >> 1) & 0x3333333333333333;
  x = (x | x >> 2) & 0x0F0F0F0F0F0F0F0F;
  x = (x | x >> 4) & 0x00FF00FF00FF00FF;
  x = (x | x >> 8) & 0x0000FFFF0000FFFF;
  x = (x | x >> 16) & 0x00000000FFFFFFFF;
  return static_cast<std::uint32_t>(x);
}
static_assert(gather(spread(0xDEADBEEF)) == 0xDEADBEEF && spread(0b101) == 0b110011);

// The 256 bits of a leaf from the blocks before `blocks` on.
LeafWords words_of(std::span<const std::byte> bits, std::uint64_t first_block,
                   std::uint64_t blocks) noexcept {
  LeafWords words{};
  for (std::size_t w = 0; w < k_words_per_leaf; ++w) {
    std::uint32_t half = 0;
    std::memcpy(&half, bits.data() + (w * sizeof(half)), sizeof(half));
    const std::uint64_t first = first_block + (w * 32);
    // What lies behind the last block's bit means nothing.
    if (first + 32 > blocks) half &= first >= blocks ? 0 : (std::uint32_t{1} << (blocks - first)) - 1;
    words[w] = spread(half);
  }
  return words;
}

std::uint64_t blocks_only_in(const LeafWords& here, const LeafWords& there) noexcept {
  std::uint64_t count = 0;
  for (std::size_t w = 0; w < k_words_per_leaf; ++w)
    count += static_cast<std::uint64_t>(std::popcount(here[w] & ~there[w])) / 2;
  return count;
}

}  // namespace

Range map_page_place(const Head& head, std::uint64_t page) noexcept {
  const std::uint64_t at = page * k_map_page_bytes;
  return {k_bitmap_at + at, std::min(k_map_page_bytes, head.map_bytes - at)};
}

IoStatus install(StateMap& states, const Head& head, std::uint64_t page, std::span<const std::byte> bits,
                 std::uint64_t& more) noexcept {
  for (std::uint64_t i = 0; (i + 1) * k_leaf_bytes <= bits.size(); ++i) {
    const std::uint64_t leaf = (page * k_leaves_per_map_page) + i;
    const LeafWords read =
        words_of(bits.subspan(i * k_leaf_bytes, k_leaf_bytes), leaf * k_clusters_per_leaf, head.base_blocks);
    LeafWords known{};
    if (states.copy_leaf(leaf, known)) {
      more += blocks_only_in(known, read);
      if (canary(Canary::live_leaf_overwritten)) states.forget_leaf(leaf);
    }
    if (std::ranges::all_of(read, [](std::uint64_t word) { return word == 0; })) continue;
    if (const IoStatus made = states.install_leaf(leaf, read); !made.ok()) return made;
  }
  return {};
}

void compose(const StateMap& states, std::uint64_t page, std::span<std::byte> bits) noexcept {
  for (std::uint64_t i = 0; (i + 1) * k_leaf_bytes <= bits.size(); ++i) {
    LeafWords words{};
    (void)states.copy_leaf((page * k_leaves_per_map_page) + i, words);
    for (std::size_t w = 0; w < k_words_per_leaf; ++w) {
      const std::uint32_t half = gather(words[w]);
      std::memcpy(bits.data() + (i * k_leaf_bytes) + (w * sizeof(half)), &half, sizeof(half));
    }
  }
}

}  // namespace oxbow::cowloop
