// SPDX-License-Identifier: Apache-2.0
#pragma once

// Bits of a cowfile's bitmap: bit n (byte n/8, bit n%8 from the lowest) is set when the cowfile has block n. A piece of
// a bitmap is a bitmap too, with block numbers that begin at 0.

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/cowloop/head.h"
#include "oxbow/range.h"

namespace oxbow::cowloop {

// Where block `block` lies in a file that is not packed.
[[nodiscard]] constexpr std::uint64_t block_at(const Head& head, std::uint64_t block) noexcept {
  return head.data_offset + (block * k_block_bytes);
}

[[nodiscard]] inline bool is_set(std::span<const std::byte> bitmap, std::uint64_t block) noexcept {
  return (bitmap[block / 8] & (std::byte{1} << (block % 8))) != std::byte{0};
}
inline void set(std::span<std::byte> bitmap, std::uint64_t block) noexcept {
  bitmap[block / 8] |= std::byte{1} << (block % 8);
}

// How many bits are set.
[[nodiscard]] std::uint64_t count_set(std::span<const std::byte> bitmap) noexcept;

// The first run of set bits at or behind block `from`, as {first block, count}; empty when there is none.
[[nodiscard]] Range next_run(std::span<const std::byte> bitmap, std::uint64_t from) noexcept;

}  // namespace oxbow::cowloop
