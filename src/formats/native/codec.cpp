// SPDX-License-Identifier: Apache-2.0
#include "formats/native/codec.h"

#include <fmt/format.h>
#include <isa-l.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>

namespace oxbow::native {
namespace {

constexpr std::uint64_t align_up(std::uint64_t value, std::uint64_t alignment) noexcept {
  return (value + alignment - 1) / alignment * alignment;
}

template <typename T>
std::span<const std::byte> bytes_after_crc(const T& object, std::size_t crc_offset) noexcept {
  return std::as_bytes(std::span(&object, 1)).subspan(crc_offset + sizeof(std::uint32_t));
}

template <typename T>
std::uint32_t salted_crc(const T& object, std::uint64_t salt) noexcept {
  const std::uint32_t seed = crc32c(std::as_bytes(std::span(&salt, 1)));
  return crc32c(bytes_after_crc(object, 0), seed);
}

template <typename T>
bool all_zero(const T& object) noexcept {
  return std::ranges::all_of(std::as_bytes(std::span(&object, 1)),
                             [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t crc) noexcept {
  // The library takes and returns the register as it stands, without the inversions of the standard; it only
  // reads.
  auto* data = const_cast<unsigned char*>(reinterpret_cast<const unsigned char*>(bytes.data()));
  return ~::crc32_iscsi(data, static_cast<int>(bytes.size()), ~crc);
}

std::uint64_t cluster_count(std::uint64_t size, std::uint32_t cluster_shift) noexcept {
  return (size + (std::uint64_t{1} << cluster_shift) - 1) >> cluster_shift;
}

Geometry geometry(std::uint64_t max_size, std::uint32_t cluster_shift) noexcept {
  constexpr std::uint64_t k_mebibyte = 1 << 20;
  Geometry g{};
  const std::uint64_t clusters = cluster_count(max_size, cluster_shift);
  g.page_count = (clusters + k_clusters_per_page - 1) / k_clusters_per_page;
  g.holder_offset = 2 * k_apart_bytes;
  g.record_offset = {3 * k_apart_bytes, 4 * k_apart_bytes};
  g.ring_offset = k_mebibyte;
  g.ring_length = k_ring_bytes;
  g.slot_offset[0] = g.ring_offset + g.ring_length;
  g.slot_offset[1] = align_up(g.slot_offset[0] + (g.page_count * k_page_bytes), k_apart_bytes);
  g.data_offset = align_up(g.slot_offset[1] + (g.page_count * k_page_bytes),
                           std::max(k_apart_bytes, std::uint64_t{1} << cluster_shift));
  return g;
}

std::uint64_t file_bytes(const Superblock& superblock) noexcept {
  return superblock.data_offset +
         (cluster_count(superblock.size, superblock.cluster_shift) << superblock.cluster_shift);
}

void lay_out(Superblock& s) noexcept {
  const Geometry g = geometry(s.max_size, s.cluster_shift);
  s.page_count = g.page_count;
  s.slot_offset = g.slot_offset;
  s.record_offset = g.record_offset;
  s.holder_offset = g.holder_offset;
  s.ring_offset = g.ring_offset;
  s.ring_length = g.ring_length;
  s.data_offset = g.data_offset;
}

std::uint32_t checksum(const Superblock& superblock) noexcept {
  return crc32c(bytes_after_crc(superblock, offsetof(Superblock, crc)));
}
std::uint32_t checksum(const StatePage& page, std::uint64_t salt) noexcept { return salted_crc(page, salt); }
std::uint32_t checksum(const FlushRecord& record, std::uint64_t salt) noexcept {
  return salted_crc(record, salt);
}
std::uint32_t checksum(const Holder& holder) noexcept { return crc32c(bytes_after_crc(holder, 0)); }

void seal(Superblock& superblock) noexcept { superblock.crc = checksum(superblock); }
void seal(StatePage& page, std::uint64_t salt) noexcept { page.crc = checksum(page, salt); }
void seal(FlushRecord& record, std::uint64_t salt) noexcept { record.crc = checksum(record, salt); }
void seal(Holder& holder) noexcept { holder.crc = checksum(holder); }

bool valid(const Holder& holder) noexcept {
  return holder.magic == k_holder_magic && holder.crc == checksum(holder);
}

namespace {

std::uint32_t lasting_crc(const LiveHeader& header) noexcept {
  const auto bytes = std::as_bytes(std::span(&header, 1));
  return crc32c(bytes.first(offsetof(LiveHeader, epoch)).subspan(offsetof(LiveHeader, version)));
}

}  // namespace

void seal(LiveHeader& header) noexcept { header.crc = lasting_crc(header); }

bool valid(const LiveHeader& header) noexcept { return header.crc == lasting_crc(header); }

std::optional<std::string> contradiction(const Superblock& s) {
  if (s.cluster_shift < k_smallest_cluster_shift || s.cluster_shift > k_largest_cluster_shift) {
    return fmt::format("cluster_shift is {}, not 12 to 20", s.cluster_shift);
  }
  if (s.size == 0 || s.max_size > k_largest_size_bytes || s.size > s.max_size) {
    return fmt::format("size {} and max_size {} don't fit each other", s.size, s.max_size);
  }
  if (s.base_visible > s.size) return fmt::format("base_visible {} is above size {}", s.base_visible, s.size);
  const Geometry g = geometry(s.max_size, s.cluster_shift);
  const bool same = g.page_count == s.page_count && g.slot_offset == s.slot_offset &&
                    g.record_offset == s.record_offset && g.holder_offset == s.holder_offset &&
                    g.ring_offset == s.ring_offset && g.ring_length == s.ring_length &&
                    g.data_offset == s.data_offset;
  if (!same) return "the offsets don't follow from max_size and cluster_shift";
  if (s.page_count > k_record_slot_bit) {
    return fmt::format("it would have {} state pages, flush records can name {}", s.page_count,
                       k_record_slot_bit);
  }
  if (!all_zero(s.reserved)) return "its reserved bytes are not zero";
  if (s.epoch == 0 || s.absent_before > s.epoch) {
    return fmt::format("absent_before {} and epoch {} don't fit each other", s.absent_before, s.epoch);
  }
  if (s.state != LayerState::clean && s.state != LayerState::in_use) {
    return fmt::format("state is {}, not 0 or 1", static_cast<std::uint32_t>(s.state));
  }
  if (s.base.kind > BaseKind::layer) {
    return fmt::format("base kind is {}, not 0 to 2", static_cast<std::uint32_t>(s.base.kind));
  }
  if (s.base_path_length > k_base_path_bytes || (s.base.kind != BaseKind::none && s.base_path_length == 0)) {
    return fmt::format("base_path_length is {}, not 1 to {}", s.base_path_length, k_base_path_bytes);
  }
  if (base_path(s).find('\0') != std::string::npos) return "the base's path holds a zero byte";
  if (s.base_visible > s.base.size) {
    return fmt::format("base_visible {} is above the base's size {}", s.base_visible, s.base.size);
  }
  return std::nullopt;
}

SuperblockFault check(const Superblock& s, std::uint32_t copy) {
  if (s.magic != k_magic) return {Fault::no_magic, "it has no oxbow magic: not an oxbow layer"};
  if (s.crc != crc32c(bytes_after_crc(s, offsetof(Superblock, crc)))) {
    return {Fault::checksum, fmt::format("superblock copy {} is damaged: its checksum is wrong", copy)};
  }
  if (s.version > k_version) {
    return {Fault::version,
            fmt::format("its format version is {}, this oxbow knows up to {}: use a newer oxbow", s.version,
                        k_version)};
  }
  if (const std::uint64_t unknown = s.incompatible & ~k_known_incompatible; unknown != 0) {
    return {Fault::features,
            fmt::format("it uses features that this oxbow doesn't know ({:#x}): use a newer oxbow", unknown)};
  }
  if (s.copy != copy) {
    return {Fault::inconsistent, fmt::format("superblock copy {} says that it is copy {}", copy, s.copy)};
  }
  if (auto text = contradiction(s)) {
    return {Fault::inconsistent, fmt::format("superblock copy {}: {}", copy, *text)};
  }
  return {};
}

SlotState inspect(const StatePage& page, std::uint64_t index, std::uint32_t slot,
                  const Superblock& superblock) noexcept {
  if (page.crc == 0 && all_zero(page)) return SlotState::never_written;
  const bool sound = page.magic == k_page_magic && page.index == index && page.slot == slot &&
                     page.reserved0 == 0 && all_zero(page.reserved1) &&
                     page.crc == salted_crc(page, superblock.salt) && page.epoch <= superblock.epoch;
  if (!sound) return SlotState::damaged;
  return page.epoch < superblock.absent_before ? SlotState::dead : SlotState::valid;
}

SlotState inspect(const FlushRecord& record, std::uint32_t slot, const Superblock& superblock) noexcept {
  if (record.crc == 0 && all_zero(record)) return SlotState::never_written;
  const bool sound = record.magic == k_record_magic && record.slot == slot &&
                     record.count <= k_pages_per_flush && all_zero(record.reserved0) &&
                     record.crc == salted_crc(record, superblock.salt) && record.epoch <= superblock.epoch;
  if (!sound) return SlotState::damaged;
  return record.epoch < superblock.absent_before ? SlotState::dead : SlotState::valid;
}

RingRecord ring_head(std::span<const std::byte> record) noexcept {
  RingRecord head;
  std::memcpy(&head, record.data(), sizeof(head));
  return head;
}

RingEntry ring_entry(std::span<const std::byte> record, std::uint32_t index) noexcept {
  RingEntry entry;
  std::memcpy(&entry, record.data() + ring_data_at(index), sizeof(entry));
  return entry;
}

std::uint64_t ring_record_bytes(const RingRecord& head, std::uint64_t room) noexcept {
  const bool sound =
      head.magic == k_ring_magic && head.count > 0 && head.count <= k_ring_entries &&
      head.length % k_ring_align_bytes == 0 && head.length >= ring_data_at(head.count) &&
      head.length <= align_up(ring_data_at(k_ring_entries) + k_ring_data_bytes, k_ring_align_bytes);
  return sound && head.length <= room ? head.length : 0;
}

namespace {

std::uint32_t ring_crc(std::span<const std::byte> record, std::uint64_t salt) noexcept {
  return crc32c(record.subspan(sizeof(std::uint32_t)), crc32c(std::as_bytes(std::span(&salt, 1))));
}

bool valid_ring_entry(const RingEntry& entry, const Superblock& s) noexcept {
  const std::uint64_t device = cluster_count(s.size, s.cluster_shift) << s.cluster_shift;
  const std::uint64_t page = k_clusters_per_page << s.cluster_shift;
  const std::uint64_t unit = entry.state == 1 ? std::uint64_t{1} << s.cluster_shift : k_sector_bytes;
  return (entry.state == 1 || entry.state == 3) && entry.reserved == 0 && entry.length > 0 &&
         entry.offset % unit == 0 && entry.length % unit == 0 && entry.offset < device &&
         entry.length <= device - entry.offset &&
         entry.offset / page == (entry.offset + entry.length - 1) / page;
}

}  // namespace

void seal_ring_record(std::span<std::byte> record, std::uint64_t salt) noexcept {
  const std::uint32_t crc = ring_crc(record, salt);
  std::memcpy(record.data(), &crc, sizeof(crc));
}

bool valid_ring_record(std::span<const std::byte> record, const Superblock& superblock) noexcept {
  const RingRecord head = ring_head(record);
  if (ring_record_bytes(head, record.size()) != record.size()) return false;
  if (head.crc != ring_crc(record, superblock.salt) || !all_zero(head.reserved)) return false;
  if (head.epoch < superblock.absent_before || head.epoch > superblock.epoch) return false;
  std::uint64_t data = 0;
  for (std::uint32_t i = 0; i < head.count; ++i) {
    const RingEntry entry = ring_entry(record, i);
    if (!valid_ring_entry(entry, superblock)) return false;
    if (entry.state != 3) continue;
    if (entry.length > record.size()) return false;
    data += entry.length;
  }
  return align_up(ring_data_at(head.count) + data, k_ring_align_bytes) == record.size();
}

bool has_invalid_state(const LeafWords& leaf) noexcept {
  constexpr std::uint64_t k_low = 0x5555555555555555;
  return std::ranges::any_of(leaf, [](std::uint64_t word) { return ((word >> 1) & ~word & k_low) != 0; });
}

bool has_invalid_state(const StatePage& page) noexcept {
  return std::ranges::any_of(page.leaves, [](const LeafWords& leaf) { return has_invalid_state(leaf); });
}

std::vector<Range> sample_ranges(std::uint64_t size, const Uuid& uuid) {
  constexpr std::uint64_t k_end_bytes = 64 << 10;
  constexpr std::uint64_t k_block_bytes = 4096;
  constexpr std::uint64_t k_blocks = 64;
  if (size == 0) return {};
  std::vector<Range> ranges;
  ranges.push_back({0, std::min(size, k_end_bytes)});
  const std::uint64_t last = std::min(size, k_end_bytes);
  ranges.push_back({size - last, last});
  if (size <= 2 * k_end_bytes) return ranges;
  for (std::uint64_t i = 0; i < k_blocks; ++i) {
    const std::uint64_t random = XXH3_64bits_withSeed(uuid.data(), uuid.size(), i);
    ranges.push_back({random % (size / k_block_bytes) * k_block_bytes, k_block_bytes});
  }
  return ranges;
}

std::string to_text(const Uuid& uuid) {
  std::string text;
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", uuid[i]);
  }
  return text;
}

std::string base_path(const Superblock& superblock) {
  const auto length = std::min<std::size_t>(superblock.base_path_length, k_base_path_bytes);
  return {superblock.base_path.data(), length};
}

}  // namespace oxbow::native
