// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bytes of a cowfile of cowloop, format version 1, and the arithmetic on them. The file holds the modified blocks
// of a read-only file (the rdofile); docs/cowloop.md describes it for people.
//
//   head │ bitmap     │ padding │ block 0 │ block 1 │ …
//   0      1024         …         data_offset
//
// A packed file is the same up to data_offset; there only the blocks follow that are present, without gaps.
// Compressed by cowpack -z it has NO gaps at all, and no padding: the fields of the head (8 bytes and six words, so
// 56 or 32 bytes), at once the bitmap, at once the blocks; that is what cowpack -u -z reads.
//
// Its head comes in two layouts: that of machines whose `unsigned long` has 8 bytes, and that of 4 bytes.

#include <cstddef>
#include <cstdint>

namespace oxbow::cowloop {

inline constexpr std::uint32_t k_magic = 0x574f437f;          // bytes 7f 43 4f 57
inline constexpr std::uint32_t k_swapped_magic = 0x7f434f57;  // the same, written by a big-endian machine
inline constexpr std::uint16_t k_version = 1;
inline constexpr std::uint16_t k_flag_dirty = 1;
inline constexpr std::uint16_t k_flag_packed = 2;

inline constexpr std::uint64_t k_block_bytes = 1024;  // "mapunit"
inline constexpr std::uint64_t k_bitmap_at = 1024;    // in the file, packed or not
inline constexpr std::uint64_t k_data_align_bytes = 4096;
inline constexpr std::uint64_t k_session_at = 512;  // in the head block: who has it open, while it is dirty
inline constexpr std::uint64_t k_session_bytes = 64;
inline constexpr std::uint64_t k_merge_at = 576;  // in the head block: that it is being merged
inline constexpr std::uint64_t k_merge_magic = 0x4547524d5742584f;  // bytes "OXBWMRGE"
// Of a device that the 8-byte layout can have: its file's length stays below 2^63.
inline constexpr std::uint64_t k_most_blocks = std::uint64_t{1} << 50;
// Of one that the 4-byte layout can have: less than 4 TiB.
inline constexpr std::uint64_t k_most_blocks_4 = 0xffffffff;

// cowused of a dirty file whose bitmap was kept in order all the time: it needs no repair.
inline constexpr std::uint64_t k_in_order = ~std::uint64_t{0};

enum class Layout : std::uint8_t { bytes_4, bytes_8 };

// The part of the head block that fields lie in, bytes.
[[nodiscard]] constexpr std::uint64_t fields_bytes(Layout layout) noexcept {
  return 8 + (6 * (layout == Layout::bytes_8 ? 8U : 4U));
}

// How a packed stream is laid out.
enum class Form : std::uint8_t {
  padded,   // head block, bitmap, padding up to data_offset, blocks: as a file
  gapless,  // fields of the head, bitmap, blocks: as cowpack compresses it
};

[[nodiscard]] constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t unit) noexcept {
  return (value + unit - 1) / unit * unit;
}

// How many blocks a read-only file of `bytes` has: a trailing part of a block is cut off.
[[nodiscard]] constexpr std::uint64_t blocks_of(std::uint64_t bytes) noexcept {
  return bytes / k_block_bytes;
}

// The bitmap of `blocks` blocks (at most k_most_blocks), in bytes.
[[nodiscard]] constexpr std::uint64_t map_bytes(std::uint64_t blocks) noexcept {
  return align_up((blocks + 7) / 8, k_block_bytes);
}

// Where block 0 lies in the file.
[[nodiscard]] constexpr std::uint64_t data_offset(std::uint64_t map_bytes) noexcept {
  return align_up(k_bitmap_at + map_bytes, k_data_align_bytes);
}

}  // namespace oxbow::cowloop
