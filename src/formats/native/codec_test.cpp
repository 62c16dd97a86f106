// SPDX-License-Identifier: Apache-2.0
#include "formats/native/codec.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace oxbow::native {
namespace {

// A consistent superblock over a raw base of one GiB.
Superblock example() {
  Superblock s{};
  s.magic = k_magic;
  s.sequence = 7;
  s.size = std::uint64_t{1} << 30;
  s.base_visible = s.size;
  s.max_size = std::uint64_t{16} << 40;
  s.cluster_shift = 12;
  lay_out(s);
  s.epoch = 3;
  s.absent_before = 2;
  s.base.kind = BaseKind::raw;
  s.base.size = s.size;
  s.base_path_length = 1;
  s.base_path[0] = 'b';
  seal(s);
  return s;
}

TEST(Crc32c, IsTheStandardOne) {
  // The check value of CRC-32C/iSCSI, and RFC 3720 B.4: 32 bytes of zeros.
  constexpr std::string_view k_digits = "123456789";
  EXPECT_EQ(crc32c(std::as_bytes(std::span(k_digits))), 0xe3069283U);
  const std::array<std::byte, 32> zeros{};
  EXPECT_EQ(crc32c(zeros), 0x8a9136aaU);
  EXPECT_EQ(crc32c(std::as_bytes(std::span(k_digits)).subspan(4),
                   crc32c(std::as_bytes(std::span(k_digits)).first(4))),
            0xe3069283U);
}

TEST(Superblock, IsAcceptedWhenConsistent) { EXPECT_EQ(check(example(), 0).text, ""); }

struct Mutation {
  std::function<void(Superblock&)> apply;
  Fault fault;
  std::string_view text;
};

TEST(Superblock, EveryContradictionIsNamed) {
  const std::vector<Mutation> mutations{
      {[](Superblock& s) { s.magic[0] = 'Q'; }, Fault::no_magic, "it has no oxbow magic: not an oxbow layer"},
      {[](Superblock& s) { s.version = 9; }, Fault::version,
       "its format version is 9, this oxbow knows up to 1: use a newer oxbow"},
      {[](Superblock& s) { s.incompatible = 0x10; }, Fault::features,
       "it uses features that this oxbow doesn't know (0x10): use a newer oxbow"},
      {[](Superblock& s) { s.copy = 1; }, Fault::inconsistent, "superblock copy 0 says that it is copy 1"},
      {[](Superblock& s) { s.cluster_shift = 60; }, Fault::inconsistent,
       "superblock copy 0: cluster_shift is 60, not 12 to 20"},
      {[](Superblock& s) { s.size = 0; }, Fault::inconsistent,
       "superblock copy 0: size 0 and max_size 17592186044416 don't fit each other"},
      {[](Superblock& s) { s.max_size = ~std::uint64_t{0}; }, Fault::inconsistent,
       "superblock copy 0: size 1073741824 and max_size 18446744073709551615 don't fit each other"},
      {[](Superblock& s) { s.base_visible = s.size + 1; }, Fault::inconsistent,
       "superblock copy 0: base_visible 1073741825 is above size 1073741824"},
      {[](Superblock& s) { s.data_offset += 4096; }, Fault::inconsistent,
       "superblock copy 0: the offsets don't follow from max_size and cluster_shift"},
      {[](Superblock& s) { s.reserved[431] = 1; }, Fault::inconsistent,
       "superblock copy 0: its reserved bytes are not zero"},
      {[](Superblock& s) { s.absent_before = 4; }, Fault::inconsistent,
       "superblock copy 0: absent_before 4 and epoch 3 don't fit each other"},
      // NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange): what a damaged layer may hold
      {[](Superblock& s) { s.state = LayerState{5}; }, Fault::inconsistent,
       "superblock copy 0: state is 5, not 0 or 1"},
      // NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange)
      {[](Superblock& s) { s.base.kind = BaseKind{3}; }, Fault::inconsistent,
       "superblock copy 0: base kind is 3, not 0 to 2"},
      {[](Superblock& s) { s.base_path_length = 4000; }, Fault::inconsistent,
       "superblock copy 0: base_path_length is 4000, not 1 to 3072"},
      {[](Superblock& s) { s.base_path_length = 2; }, Fault::inconsistent,
       "superblock copy 0: the base's path holds a zero byte"},
  };
  for (const Mutation& mutation : mutations) {
    Superblock s = example();
    mutation.apply(s);
    seal(s);
    const SuperblockFault found = check(s, 0);
    EXPECT_EQ(found.fault, mutation.fault) << mutation.text;
    EXPECT_EQ(found.text, mutation.text);
  }
  Superblock rotten = example();
  rotten.created_ns ^= 1;
  EXPECT_EQ(check(rotten, 0).text, "superblock copy 0 is damaged: its checksum is wrong");
}

TEST(StatePage, IsValidOnlyWhereAndWhenItWasWritten) {
  const Superblock s = example();
  auto page = std::make_unique<StatePage>();
  EXPECT_EQ(inspect(*page, 5, 1, s), SlotState::never_written);
  page->magic = k_page_magic;
  page->index = 5;
  page->slot = 1;
  page->epoch = 3;
  seal(*page, s.salt);
  EXPECT_EQ(inspect(*page, 5, 1, s), SlotState::valid);
  EXPECT_EQ(inspect(*page, 5, 0, s), SlotState::damaged) << "the other slot";
  EXPECT_EQ(inspect(*page, 6, 1, s), SlotState::damaged) << "misdirected";
  Superblock other = s;
  other.salt = s.salt + 1;
  EXPECT_EQ(inspect(*page, 5, 1, other), SlotState::damaged) << "another layer's";
  page->epoch = 1;
  seal(*page, s.salt);
  EXPECT_EQ(inspect(*page, 5, 1, s), SlotState::dead);
  page->epoch = 4;
  seal(*page, s.salt);
  EXPECT_EQ(inspect(*page, 5, 1, s), SlotState::damaged) << "from the future";
  EXPECT_FALSE(has_invalid_state(*page));
  page->leaves[62][7] = std::uint64_t{0b10} << 62;
  EXPECT_TRUE(has_invalid_state(*page));
}

TEST(FlushRecord, IsCheckedLikeAPage) {
  const Superblock s = example();
  auto record = std::make_unique<FlushRecord>();
  EXPECT_EQ(inspect(*record, 0, s), SlotState::never_written);
  record->magic = k_record_magic;
  record->epoch = 3;
  record->count = 1;
  record->pages[0] = 77;
  seal(*record, s.salt);
  EXPECT_EQ(inspect(*record, 0, s), SlotState::valid);
  EXPECT_EQ(inspect(*record, 1, s), SlotState::damaged);
  record->pages[900] = 1;
  EXPECT_EQ(inspect(*record, 0, s), SlotState::damaged) << "also what is not in use is covered";
  record->pages[900] = 0;
  record->count = 2000;
  seal(*record, s.salt);
  EXPECT_EQ(inspect(*record, 0, s), SlotState::damaged);
}

// A sound record of the ring: a sector of data, then a zero cluster.
std::vector<std::byte> ring_record(const Superblock& s) {
  std::vector<std::byte> record(k_ring_align_bytes);
  RingRecord head{};
  head.magic = k_ring_magic;
  head.epoch = s.epoch;
  head.sequence = 9;
  head.length = static_cast<std::uint32_t>(record.size());
  head.count = 2;
  const std::array<RingEntry, 2> entries{
      RingEntry{.offset = 1024, .length = 512, .state = 3, .reserved = 0},
      RingEntry{.offset = 8192, .length = 4096, .state = 1, .reserved = 0}};
  std::memcpy(record.data(), &head, sizeof(head));
  std::memcpy(record.data() + sizeof(head), entries.data(), sizeof(entries));
  std::memset(record.data() + ring_data_at(2), 'r', 512);
  seal_ring_record(record, s.salt);
  return record;
}

TEST(RingRecord, IsValidOnlyAsItWasSealed) {
  const Superblock s = example();
  const auto record = ring_record(s);
  EXPECT_EQ(ring_record_bytes(ring_head(record), record.size()), record.size());
  EXPECT_EQ(ring_record_bytes(ring_head(record), record.size() - 1), 0U) << "it does not fit";
  EXPECT_TRUE(valid_ring_record(record, s));
  EXPECT_EQ(ring_entry(record, 1).offset, 8192U);
  for (std::size_t at = 0; at < record.size(); ++at) {
    auto rotten = record;
    rotten[at] ^= std::byte{0x10};
    EXPECT_FALSE(valid_ring_record(rotten, s)) << at;
  }
  Superblock other = s;
  other.salt ^= 1;
  EXPECT_FALSE(valid_ring_record(record, other)) << "of another layer";
  other = s;
  other.absent_before = s.epoch + 1;
  EXPECT_FALSE(valid_ring_record(record, other)) << "from before a reset";
  other = s;
  other.epoch = s.epoch - 1;
  EXPECT_FALSE(valid_ring_record(record, other)) << "of an epoch that never was";
}

TEST(RingRecord, EntriesThatMakeNoSenseAreRefusedEvenWhenSealed) {
  const Superblock s = example();
  const std::vector<std::pair<std::string, std::function<void(RingRecord&, RingEntry&)>>> mutations{
      {"beyond the device", [&](RingRecord&, RingEntry& e) { e.offset = s.size; }},
      {"an end that overflows", [](RingRecord&, RingEntry& e) { e.length = ~std::uint64_t{511}; }},
      {"nothing", [](RingRecord&, RingEntry& e) { e.length = 0; }},
      {"half a sector", [](RingRecord&, RingEntry& e) { e.offset += 256; }},
      {"part of a zero cluster", [](RingRecord&, RingEntry& e) { e.state = 1; }},
      {"a state that there isn't", [](RingRecord&, RingEntry& e) { e.state = 2; }},
      {"reserved", [](RingRecord&, RingEntry& e) { e.reserved = 1; }},
      {"more data than it has", [](RingRecord&, RingEntry& e) { e.length = 8192; }},
      {"no entry", [](RingRecord& r, RingEntry&) { r.count = 0; }},
      {"too many entries", [](RingRecord& r, RingEntry&) { r.count = 300; }},
      {"a length that is no multiple", [](RingRecord& r, RingEntry&) { r.length = 4000; }},
      {"longer than it is", [](RingRecord& r, RingEntry&) { r.length = 8192; }},
      {"over two state pages",
       [](RingRecord&, RingEntry& e) {
         e.offset = (k_clusters_per_page << 12) - 256 * 512, e.length = 512 * 512;
       }},
  };
  for (const auto& [what, mutate] : mutations) {
    auto record = ring_record(s);
    RingRecord head = ring_head(record);
    RingEntry entry = ring_entry(record, 0);
    mutate(head, entry);
    std::memcpy(record.data(), &head, sizeof(head));
    std::memcpy(record.data() + sizeof(head), &entry, sizeof(entry));
    seal_ring_record(record, s.salt);
    EXPECT_FALSE(valid_ring_record(record, s)) << what;
  }
}

TEST(SampleRanges, StayInsideAndDependOnTheLayer) {
  const Uuid one{1};
  const Uuid two{2};
  EXPECT_TRUE(sample_ranges(0, one).empty());
  for (const std::uint64_t size :
       {std::uint64_t{1}, std::uint64_t{65'537}, std::uint64_t{131'073}, std::uint64_t{1} << 40}) {
    for (const Range& range : sample_ranges(size, one)) EXPECT_TRUE(range.fits(size)) << size;
  }
  EXPECT_EQ(sample_ranges(std::uint64_t{1} << 40, one).size(), 66U);
  EXPECT_NE(sample_ranges(std::uint64_t{1} << 40, one), sample_ranges(std::uint64_t{1} << 40, two));
}

TEST(Geometry, KeepsTwinsApart) {
  for (std::uint32_t shift = k_smallest_cluster_shift; shift <= k_largest_cluster_shift; ++shift) {
    for (const std::uint64_t max_size : {std::uint64_t{1}, std::uint64_t{16} << 40, k_largest_size_bytes}) {
      const Geometry g = geometry(max_size, shift);
      EXPECT_EQ(g.slot_offset[1] % k_apart_bytes, 0U);
      EXPECT_GE(g.slot_offset[1], g.slot_offset[0] + (g.page_count * k_page_bytes));
      EXPECT_GE(g.data_offset, g.slot_offset[1] + (g.page_count * k_page_bytes));
      EXPECT_EQ(g.data_offset % (std::uint64_t{1} << shift), 0U);
    }
  }
}

}  // namespace
}  // namespace oxbow::native
