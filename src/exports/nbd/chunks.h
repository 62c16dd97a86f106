// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bytes of replies: simple ones, and the chunks of structured ones. No I/O and no policy here.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "device/device.h"
#include "os/fixed.h"
#include "oxbow/range.h"

namespace oxbow::nbd {

inline constexpr std::uint32_t k_structured_reply_magic = 0x668e33ef;
inline constexpr std::size_t k_chunk_header_bytes = 20;
inline constexpr std::uint16_t k_chunk_done = 1U << 0;  // the only flag

enum class ChunkType : std::uint16_t {
  none = 0,
  offset_data = 1,
  offset_hole = 2,
  block_status = 5,
  error = 0x8001,
  error_offset = 0x8002,
};

// Whether a chunk is the last of its reply.
enum class Last : bool { no, yes };

// A simple reply or one chunk: its own bytes, then some of the reply's pieces.
struct Chunk {
  static constexpr std::size_t k_max_head_bytes = 34;

  std::array<std::byte, k_max_head_bytes> head;
  std::uint8_t head_bytes;
  std::uint8_t pieces;       // how many follow it
  std::uint32_t data_bytes;  // in them
};

// Of a structured one; `none` for a simple reply.
[[nodiscard]] ChunkType type_of(const Chunk& chunk) noexcept;
// Of a chunk of content: where in the device it begins.
[[nodiscard]] std::uint64_t offset_of(const Chunk& chunk) noexcept;

// What leaves for the client of one request at a time: chunks, and the memory that their data is sent from.
// Thread safety: belongs to the connection's thread.
struct Reply {
  // Holes are told apart as long as there is room for the chunks around them and an end.
  static constexpr std::size_t k_max_chunks = 10;

  Fixed<Chunk, k_max_chunks> chunks;
  ReadView data;          // the pieces of all chunks, in order
  std::size_t bytes = 0;  // all of it

  void clear() noexcept {
    chunks.clear();
    data.clear();
    bytes = 0;
  }
};

// All pieces that are in `reply.data` follow.
void put_simple(Reply& reply, std::uint64_t cookie, std::uint32_t error) noexcept;

// --- structured; each puts one chunk behind those that are there ---

// `length` bytes of the device from `offset` on: the next `pieces` of reply.data.
void put_data(Reply& reply, std::uint64_t cookie, std::uint64_t offset, std::uint32_t length,
              std::size_t pieces, Last last) noexcept;
void put_hole(Reply& reply, std::uint64_t cookie, Range hole, Last last) noexcept;
// The next `pieces` of reply.data are `length` bytes of descriptors.
void put_block_status(Reply& reply, std::uint64_t cookie, std::uint32_t context, std::uint32_t length,
                      std::size_t pieces, Last last) noexcept;
// Of the whole request, and the last chunk. `text` is for people, at most 4096 bytes, and lives for ever.
void put_error(Reply& reply, std::uint64_t cookie, std::uint32_t error, std::string_view text) noexcept;
// At a place of it; the last chunk.
void put_error_at(Reply& reply, std::uint64_t cookie, std::uint32_t error, std::uint64_t offset) noexcept;
// Nothing but the end.
void put_none(Reply& reply, std::uint64_t cookie) noexcept;

// Chunks for what reply.data holds of the device from `offset` on: one, or with `fragment` also holes for what
// is known to be zeros in long runs, whose pieces are dropped. Data that may fault is never in the last chunk:
// then, and when `last`, an empty one follows.
void put_content(Reply& reply, std::uint64_t cookie, std::uint64_t offset, bool fragment, Last last) noexcept;

// Zeros of at least so many bytes are worth a chunk that says so.
inline constexpr std::uint64_t k_hole_bytes = 4096;

}  // namespace oxbow::nbd
