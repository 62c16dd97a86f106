// SPDX-License-Identifier: Apache-2.0
#pragma once

// Checks and seals for the structs of layout.h: bytes in, bytes out, no I/O.

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/native/layout.h"
#include "formats/native/live_layout.h"
#include "oxbow/error.h"
#include "oxbow/range.h"

namespace oxbow::native {

// CRC32C (Castagnoli; RFC 3720) of `bytes`, continuing from `crc`: 0 to begin.
[[nodiscard]] std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc = 0) noexcept;

// Where everything lies in a layer. All in bytes but page_count.
struct Geometry {
  std::uint64_t page_count;
  std::array<std::uint64_t, 2> slot_offset;
  std::array<std::uint64_t, 2> record_offset;
  std::uint64_t holder_offset;
  std::uint64_t ring_offset;
  std::uint64_t ring_length;
  std::uint64_t data_offset;
};
// Needs size limits already checked: max_size at most k_largest_size_bytes.
[[nodiscard]] Geometry geometry(std::uint64_t max_size, std::uint32_t cluster_shift) noexcept;
// Gives a superblock the places that follow from its max_size and cluster_shift.
void lay_out(Superblock& superblock) noexcept;
// The length of a whole layer file: room for every cluster of the device.
[[nodiscard]] std::uint64_t file_bytes(const Superblock& superblock) noexcept;
[[nodiscard]] std::uint64_t cluster_count(std::uint64_t size, std::uint32_t cluster_shift) noexcept;

// Why a superblock is not accepted.
enum class Fault : std::uint8_t {
  none,
  no_magic,      // not a layer at all
  checksum,      // a layer's, damaged
  version,       // of a newer oxbow
  features,      // uses what this oxbow doesn't know
  inconsistent,  // its fields contradict each other
};
struct SuperblockFault {
  Fault fault = Fault::none;
  std::string text;  // for people; empty for none
};

// Sets the checksum; call when all else is in place.
void seal(Superblock& superblock) noexcept;
// Checks magic, checksum, version, features, then every field against the others.
[[nodiscard]] SuperblockFault check(const Superblock& superblock, std::uint32_t copy);
// The text alone of the fields' check; nullopt when they are consistent.
[[nodiscard]] std::optional<std::string> contradiction(const Superblock& superblock);

void seal(StatePage& page, std::uint64_t salt) noexcept;
void seal(FlushRecord& record, std::uint64_t salt) noexcept;
void seal(Holder& holder) noexcept;
[[nodiscard]] bool valid(const Holder& holder) noexcept;
// Of what never changes in it.
void seal(LiveHeader& header) noexcept;
// Whether the checksum is right; the rest is to be compared.
[[nodiscard]] bool valid(const LiveHeader& header) noexcept;
// What their checksums have to be.
[[nodiscard]] std::uint32_t checksum(const Superblock& superblock) noexcept;
[[nodiscard]] std::uint32_t checksum(const StatePage& page, std::uint64_t salt) noexcept;
[[nodiscard]] std::uint32_t checksum(const FlushRecord& record, std::uint64_t salt) noexcept;
[[nodiscard]] std::uint32_t checksum(const Holder& holder) noexcept;

enum class SlotState : std::uint8_t {
  never_written,  // all zeros
  valid,
  dead,     // of an epoch before absent_before
  damaged,  // anything else
};
// Where slot `slot` of page `index` lies in the file.
[[nodiscard]] inline std::uint64_t slot_at(const Superblock& superblock, std::size_t slot,
                                           std::uint64_t index) noexcept {
  return superblock.slot_offset[slot] + index * k_page_bytes;
}

// What slot `slot` of page `index` is. An epoch above the superblock's is damage.
[[nodiscard]] SlotState inspect(const StatePage& page, std::uint64_t index, std::uint32_t slot,
                                const Superblock& superblock) noexcept;
// What record slot `slot` is.
[[nodiscard]] SlotState inspect(const FlushRecord& record, std::uint32_t slot,
                                const Superblock& superblock) noexcept;
// Whether any cluster of the page has the invalid state 10.
[[nodiscard]] bool has_invalid_state(const StatePage& page) noexcept;
[[nodiscard]] bool has_invalid_state(const LeafWords& leaf) noexcept;

// A ring record is `length` bytes long and lies in memory as a whole: RingRecord, entries, data.
// How long a record that begins with `head` is, in bytes; 0 if it can't be one, or doesn't fit into `room` bytes.
[[nodiscard]] std::uint64_t ring_record_bytes(const RingRecord& head, std::uint64_t room) noexcept;
// Sets the checksum.
void seal_ring_record(std::span<std::byte> record, std::uint64_t salt) noexcept;
// Whether it is sound: checksum, epoch within the superblock's absent_before and epoch, entries within the device
// and within one state page each, data adding up.
[[nodiscard]] bool valid_ring_record(std::span<const std::byte> record,
                                     const Superblock& superblock) noexcept;
// The parts of a record: copies, since records need no alignment.
[[nodiscard]] RingRecord ring_head(std::span<const std::byte> record) noexcept;
[[nodiscard]] RingEntry ring_entry(std::span<const std::byte> record, std::uint32_t index) noexcept;
// Where the data of the first entry lies.
[[nodiscard]] constexpr std::uint64_t ring_data_at(std::uint32_t count) noexcept {
  return sizeof(RingRecord) + (count * sizeof(RingEntry));
}

// Which parts of a base of `size` bytes stand for it in BaseRecord::samples, in order: the first and the last
// 64 KiB and 64 blocks of 4 KiB that depend on the layer's uuid.
[[nodiscard]] std::vector<Range> sample_ranges(std::uint64_t size, const Uuid& uuid);

// "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx".
[[nodiscard]] std::string to_text(const Uuid& uuid);

// The base's path as it is recorded.
[[nodiscard]] std::string base_path(const Superblock& superblock);

}  // namespace oxbow::native
