// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <expected>
#include <optional>
#include <span>
#include <string>

#include "formats/cowloop/layout.h"

namespace oxbow::cowloop {

using Uuid = std::array<std::uint8_t, 16>;

// The head of a cowfile. Thread safety: a value.
struct Head {
  Layout layout = Layout::bytes_8;
  std::uint16_t version = k_version;
  bool dirty = false;
  bool packed = false;
  std::uint64_t block_bytes = k_block_bytes;  // "mapunit"
  std::uint64_t map_bytes = 0;                // "mapsize"
  std::uint64_t data_offset = 0;              // "doffset"
  std::uint64_t base_blocks = 0;              // "rdoblocks"
  std::uint32_t fingerprint = 0;              // "rdofingerprint", the bits that count
  std::uint64_t used_blocks = 0;              // "cowused"; k_in_order is only ever found with `dirty`
  Uuid boot_id{};                             // of whoever keeps it in order; zero else
  Uuid session_id{};
  // There are bytes of a session in a head that doesn't speak of it: a kill cut its write off. They mean nothing.
  bool session_left = false;
  // A merge into the read-only file was begun and is not finished, so the fingerprint is that of no file any more. This
  // is that of the blocks that are not in the cowfile, which the merge leaves as they are. Oxbow's own.
  std::optional<std::uint32_t> merging = std::nullopt;

  // Dirty, and fit to be opened without a repair.
  [[nodiscard]] bool kept_in_order() const noexcept { return dirty && used_blocks == k_in_order; }
  [[nodiscard]] std::uint64_t device_bytes() const noexcept { return base_blocks * k_block_bytes; }
  // How long the file is when it holds all blocks.
  [[nodiscard]] std::uint64_t file_bytes() const noexcept { return data_offset + device_bytes(); }

  friend bool operator==(const Head&, const Head&) noexcept = default;
};

// A clean head of a fresh cowfile for a read-only file of `blocks` blocks, 1 to k_most_blocks (k_most_blocks_4).
[[nodiscard]] Head fresh_head(Layout layout, std::uint64_t blocks, std::uint32_t fingerprint) noexcept;

// Why a head is not accepted.
enum class Fault : std::uint8_t {
  no_magic,    // no cowfile at all
  big_endian,  // a cowfile of a big-endian machine
  version,     // of a newer cowloop
  field,       // a field has a value that it can't have, alone or beside the others
};
struct HeadFault {
  Fault fault;
  std::string text;  // the end of a sentence; names the field and its value
};

// Whether the first 4 bytes of a file are a cowfile's, of either byte order.
[[nodiscard]] bool has_magic(std::span<const std::byte> start) noexcept;

// The head in the first block of a file. Every field is checked against the others, but for what needs the bitmap or
// the read-only file; dirty and packed ones are accepted.
[[nodiscard]] std::expected<Head, HeadFault> parse(std::span<const std::byte, k_block_bytes> block);

// The whole first block; what no field lies in is zero. `head` is one that parse() accepts.
void encode(const Head& head, std::span<std::byte, k_block_bytes> block) noexcept;

// "64-bit" or "32-bit": the machines that write it so.
[[nodiscard]] const char* name_of(Layout layout) noexcept;

}  // namespace oxbow::cowloop
