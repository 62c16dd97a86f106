// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bytes of a native layer, as docs/format.md specifies them. All numbers are little-endian; every struct
// is free of padding and asserts its own size and offsets, so that the struct is the format.
//
//   superblock 0 │ superblock 1 │ holder │ record 0 │ record 1 │ ring │ state slots 0 │ state slots 1 │ clusters
//   0              64 KiB         128 KiB  192 KiB    256 KiB    1 MiB  65 MiB          …               data_offset
//
// Nothing that protects its twin shares a 64 KiB block with it.

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace oxbow::native {

static_assert(std::endian::native == std::endian::little, "the on-disk structs are used in place");

inline constexpr std::array<char, 8> k_magic{'O', 'X', 'B', 'O', 'W', 'L', 'Y', 'R'};
inline constexpr std::uint32_t k_version = 1;
inline constexpr std::uint32_t k_page_magic = 0x4750584f;    // "OXPG"
inline constexpr std::uint32_t k_record_magic = 0x4352584f;  // "OXRC"
inline constexpr std::uint32_t k_ring_magic = 0x5252584f;    // "OXRR"
inline constexpr std::uint32_t k_holder_magic = 0x4448584f;  // "OXHD"

inline constexpr std::uint64_t k_superblock_bytes = 4096;
inline constexpr std::uint64_t k_page_bytes = 4096;
inline constexpr std::uint64_t k_record_bytes = 8192;
inline constexpr std::uint64_t k_holder_bytes = 4096;
inline constexpr std::uint64_t k_apart_bytes = 64 << 10;  // twins are at least this far apart
inline constexpr std::uint32_t k_smallest_cluster_shift = 12;
inline constexpr std::uint32_t k_largest_cluster_shift = 20;
inline constexpr std::uint64_t k_largest_size_bytes = std::uint64_t{1} << 60;
inline constexpr std::uint64_t k_clusters_per_leaf = 256;
inline constexpr std::uint64_t k_leaves_per_page = 63;
inline constexpr std::uint64_t k_clusters_per_page = k_clusters_per_leaf * k_leaves_per_page;
inline constexpr std::size_t k_words_per_leaf = 8;
inline constexpr std::size_t k_pages_per_flush = 1024;
inline constexpr std::uint64_t k_ring_bytes = 64 << 20;      // the room of the commit ring
inline constexpr std::uint64_t k_ring_align_bytes = 4096;    // of records
inline constexpr std::uint32_t k_ring_entries = 256;         // of a record, at most
inline constexpr std::uint64_t k_ring_data_bytes = 1 << 20;  // of a record, at most

// Feature bits. Unknown incompatible ones refuse the layer, unknown read-only-compatible ones refuse writing.
inline constexpr std::uint64_t k_incompatible_merging = 2;  // a merge into the base was begun
inline constexpr std::uint64_t k_known_incompatible = k_incompatible_merging;
inline constexpr std::uint64_t k_known_read_only_compatible = 0;

enum class BaseKind : std::uint32_t { none = 0, raw = 1, layer = 2 };
enum class LayerState : std::uint32_t { clean = 0, in_use = 1 };

using Uuid = std::array<std::uint8_t, 16>;
using Hash128 = std::array<std::uint8_t, 16>;

// What identifies a layer's base. Fields that its kind doesn't use are zero.
struct BaseRecord {
  BaseKind kind;
  std::uint32_t flags;                  // k_base_has_sha256
  std::uint64_t size;                   // bytes
  std::uint64_t device;                 // raw: st_dev; for people
  std::uint64_t inode;                  // raw: st_ino; for people
  std::int64_t mtime_ns;                // raw regular file: st_mtim; 0 for a block device
  Uuid uuid;                            // layer
  std::uint64_t epoch;                  // layer
  Hash128 samples;                      // XXH3-128 of what sample_ranges() names
  std::array<std::uint8_t, 32> sha256;  // of all bytes of the base, where flags say so
};
inline constexpr std::uint32_t k_base_has_sha256 = 1;
static_assert(sizeof(BaseRecord) == 112 && std::has_unique_object_representations_v<BaseRecord>);

inline constexpr std::size_t k_base_path_bytes = 3072;

struct Superblock {
  std::array<char, 8> magic;
  std::uint32_t crc;  // CRC32C of what follows
  std::uint32_t version;
  std::uint64_t compatible;
  std::uint64_t read_only_compatible;
  std::uint64_t incompatible;
  std::uint64_t sequence;  // the copy with the higher one counts
  Uuid uuid;
  std::uint64_t salt;          // random; part of every page's and record's checksum
  std::int64_t created_ns;     // since 1970
  std::uint64_t size;          // of the device, bytes
  std::uint64_t base_visible;  // bytes of the base that show through; zeros beyond
  std::uint64_t max_size;      // what the state slots have room for
  std::uint32_t cluster_shift;
  std::uint32_t copy;        // 0 or 1: which of the two this is
  std::uint64_t page_count;  // per slot area, for max_size
  std::array<std::uint64_t, 2> slot_offset;
  std::array<std::uint64_t, 2> record_offset;
  std::uint64_t holder_offset;
  std::uint64_t ring_offset;
  std::uint64_t ring_length;
  std::uint64_t data_offset;
  std::uint64_t epoch;          // grows before the first write of every writable session
  std::uint64_t absent_before;  // pages and records of smaller epochs are dead
  LayerState state;
  std::uint32_t base_path_length;
  BaseRecord base;
  Uuid boot_id;                                   // of the boot in which the session began; zero when clean
  std::array<char, 256> live_path;                // the session's live state; empty: none
  std::array<std::uint8_t, 432> reserved;         // zero
  std::array<char, k_base_path_bytes> base_path;  // relative to the layer's directory, or absolute
};
static_assert(sizeof(Superblock) == k_superblock_bytes &&
              std::has_unique_object_representations_v<Superblock>);
static_assert(offsetof(Superblock, crc) == 8 && offsetof(Superblock, uuid) == 48);
static_assert(offsetof(Superblock, size) == 80 && offsetof(Superblock, cluster_shift) == 104);
static_assert(offsetof(Superblock, slot_offset) == 120 && offsetof(Superblock, data_offset) == 176);
static_assert(offsetof(Superblock, epoch) == 184 && offsetof(Superblock, base) == 208);
static_assert(offsetof(Superblock, base_path) == 1024);

// States of 256 clusters, two bits each, cluster 0 in the lowest bits of word 0.
using LeafWords = std::array<std::uint64_t, k_words_per_leaf>;

// One slot of a state page. 4096 zero bytes: never written, all absent.
struct StatePage {
  std::uint32_t crc;  // CRC32C of the layer's salt and of what follows
  std::uint32_t magic;
  std::uint64_t index;
  std::uint32_t slot;
  std::uint32_t reserved0;
  std::uint64_t epoch;
  std::uint64_t flush_number;
  std::uint64_t ring_seq;  // of the last ring record that was appended before the words were copied
  std::array<std::uint64_t, 2> reserved1;
  std::array<LeafWords, k_leaves_per_page> leaves;
};
static_assert(sizeof(StatePage) == k_page_bytes && std::has_unique_object_representations_v<StatePage>);
static_assert(offsetof(StatePage, leaves) == 64);

// Names the state pages that a flush is about to write, so that a torn one can be told from a damaged one.
struct FlushRecord {
  std::uint32_t crc;  // CRC32C of the layer's salt and of what follows
  std::uint32_t magic;
  std::uint64_t epoch;
  std::uint64_t flush_number;
  std::uint64_t ring_tail;  // ring_seq of the last full flush that was completed when this one began
  std::uint32_t slot;       // 0 or 1: which of the two this is
  std::uint32_t count;      // entries in use
  std::uint64_t ring_seq;   // of the last ring record that was appended before this flush
  std::array<std::uint64_t, 2> reserved0;
  std::array<std::uint32_t, k_pages_per_flush> pages;  // page index; bit 31: its slot
  std::array<std::uint8_t, k_record_bytes - 64 - (4 * k_pages_per_flush)> reserved1;
};
static_assert(sizeof(FlushRecord) == k_record_bytes && std::has_unique_object_representations_v<FlushRecord>);
static_assert(offsetof(FlushRecord, pages) == 64);

inline constexpr std::uint32_t k_record_slot_bit = 1U << 31;

// What one small flush made durable: this, then `count` entries, then the bytes of the entries that are data, one
// after the other, then zeros up to `length`.
struct RingRecord {
  std::uint32_t crc;  // CRC32C of the layer's salt and of what follows, all `length` bytes
  std::uint32_t magic;
  std::uint64_t epoch;
  std::uint64_t sequence;  // grows by 1 with each record, across fillings and sessions
  std::uint32_t length;    // of the whole record in bytes, a multiple of k_ring_align_bytes
  std::uint32_t count;
  std::array<std::uint64_t, 4> reserved;
};
static_assert(sizeof(RingRecord) == 64 && std::has_unique_object_representations_v<RingRecord>);

// What a range of the device is, whole sectors within one state page; zero: whole clusters.
struct RingEntry {
  std::uint64_t offset;  // in the device, bytes
  std::uint64_t length;  // bytes
  std::uint32_t state;   // as of a cluster: 1 zero, 3 data
  std::uint32_t reserved;
};
static_assert(sizeof(RingEntry) == 24 && std::has_unique_object_representations_v<RingEntry>);

// Who has the layer open for writing. Told to people; decides nothing.
struct Holder {
  std::uint32_t crc;  // CRC32C of what follows
  std::uint32_t magic;
  std::uint64_t pid;
  std::int64_t started_ns;  // since 1970
  std::array<char, 256> host;
  std::array<char, 1024> command;
  std::array<std::uint8_t, 2792> reserved;
};
static_assert(sizeof(Holder) == k_holder_bytes && std::has_unique_object_representations_v<Holder>);

}  // namespace oxbow::native
