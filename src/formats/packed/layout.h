// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bytes of a packed layer, as docs/packed.md specifies them. All numbers are little-endian; every struct is free
// of padding and asserts its own size and offsets, so that the struct is the format.
//
//   header │ frames │ frame records │ run records │ trailer
//   0        4 KiB    index_offset                  at the file's end

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "formats/native/layout.h"

namespace oxbow::packed {

inline constexpr std::array<char, 8> k_magic{'O', 'X', 'B', 'O', 'W', 'P', 'A', 'K'};
inline constexpr std::array<char, 8> k_trailer_magic{'O', 'X', 'P', 'K', 'E', 'N', 'D', '1'};
inline constexpr std::uint32_t k_version = 1;

inline constexpr std::uint64_t k_header_bytes = 4096;
inline constexpr std::uint64_t k_trailer_bytes = 64;
inline constexpr std::uint64_t k_frame_record_bytes = 24;
inline constexpr std::uint64_t k_run_record_bytes = 24;
inline constexpr std::uint32_t k_smallest_frame_shift = 16;
inline constexpr std::uint32_t k_largest_frame_shift = 20;

// What identifies the layer that was packed, and what it takes to make a layer of it again.
struct Header {
  std::array<char, 8> magic;
  std::uint32_t crc;  // CRC32C of what follows
  std::uint32_t version;
  std::uint64_t compatible;
  std::uint64_t incompatible;
  native::Uuid uuid;           // of the layer
  std::uint64_t epoch;         // of the layer
  std::int64_t created_ns;     // of the layer, since 1970
  std::int64_t packed_ns;      // since 1970
  std::uint64_t size;          // of the device, bytes
  std::uint64_t base_visible;  // bytes of the base that show through; zeros beyond
  std::uint64_t max_size;      // how far the layer can grow
  std::uint32_t cluster_shift;
  std::uint32_t frame_shift;  // a frame holds 2^frame_shift bytes of clusters, the last one what is left
  std::uint32_t base_path_length;
  std::uint32_t reserved0;
  native::BaseRecord base;
  std::array<std::uint8_t, 800> reserved1;                // zero
  std::array<char, native::k_base_path_bytes> base_path;  // as the layer recorded it
};
static_assert(sizeof(Header) == k_header_bytes && std::has_unique_object_representations_v<Header>);
static_assert(offsetof(Header, crc) == 8 && offsetof(Header, uuid) == 32 && offsetof(Header, size) == 72);
static_assert(offsetof(Header, cluster_shift) == 96 && offsetof(Header, base) == 112);
static_assert(offsetof(Header, base_path) == 1024);

enum class Encoding : std::uint32_t { raw = 0, zstd = 1 };

// Where a frame lies, and what is in it.
struct FrameRecord {
  std::uint64_t offset;  // in the file
  std::uint32_t length;  // in the file
  Encoding encoding;
  std::uint32_t stored_crc;   // CRC32C of the bytes in the file
  std::uint32_t content_crc;  // CRC32C of the clusters
};
static_assert(sizeof(FrameRecord) == k_frame_record_bytes &&
              std::has_unique_object_representations_v<FrameRecord>);
static_assert(offsetof(FrameRecord, length) == 8 && offsetof(FrameRecord, content_crc) == 20);

// As the states of a layer's clusters; what no run covers is absent.
enum class RunKind : std::uint32_t { zero = 1, data = 3 };

// Clusters that are alike.
struct RunRecord {
  std::uint64_t first;
  std::uint64_t count;
  RunKind kind;
  std::uint32_t reserved;
};
static_assert(sizeof(RunRecord) == k_run_record_bytes && std::has_unique_object_representations_v<RunRecord>);

struct Trailer {
  std::array<char, 8> magic;
  std::uint32_t crc;         // CRC32C of what follows
  std::uint32_t header_crc;  // of the header that it belongs to
  std::uint64_t file_bytes;  // with this trailer
  std::uint64_t index_offset;
  std::uint64_t frame_count;
  std::uint64_t run_count;
  std::uint32_t index_crc;  // CRC32C of all frame and run records
  std::uint32_t reserved0;
  std::uint64_t reserved1;
};
static_assert(sizeof(Trailer) == k_trailer_bytes && std::has_unique_object_representations_v<Trailer>);
static_assert(offsetof(Trailer, file_bytes) == 16 && offsetof(Trailer, index_crc) == 48);

}  // namespace oxbow::packed
