// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <functional>

#include "formats/packed/codec.h"

namespace oxbow::packed {
namespace {

constexpr std::uint64_t k_clusters = 256;  // of the example

Header example_header() {
  Header h{};
  h.magic = k_magic;
  h.version = k_version;
  h.epoch = 3;
  h.size = k_clusters * 4096;
  h.base_visible = h.size;
  h.max_size = std::uint64_t{16} << 40;
  h.cluster_shift = 12;
  h.frame_shift = 16;
  h.base.kind = native::BaseKind::raw;
  h.base.size = h.size;
  h.base_path_length = 1;
  h.base_path[0] = 'b';
  seal(h);
  return h;
}

// Of two frames of 16 clusters and 1 cluster, and three runs.
constexpr std::uint64_t k_index_offset = k_header_bytes + 65536 + 100;
constexpr std::uint64_t k_file_bytes = k_index_offset + (2 * 24) + (3 * 24) + 64;

Trailer example_trailer() {
  Trailer t{};
  t.magic = k_trailer_magic;
  t.header_crc = example_header().crc;
  t.file_bytes = k_file_bytes;
  t.index_offset = k_index_offset;
  t.frame_count = 2;
  t.run_count = 3;
  seal(t);
  return t;
}

std::vector<FrameRecord> example_frames() {
  return {
      {.offset = 4096, .length = 65536, .encoding = Encoding::raw, .stored_crc = 1, .content_crc = 1},
      {.offset = 4096 + 65536, .length = 100, .encoding = Encoding::zstd, .stored_crc = 1, .content_crc = 2}};
}
std::vector<RunRecord> example_runs() {
  return {{.first = 1, .count = 16, .kind = RunKind::data, .reserved = 0},
          {.first = 17, .count = 3, .kind = RunKind::zero, .reserved = 0},
          {.first = 255, .count = 1, .kind = RunKind::data, .reserved = 0}};
}

std::string fault_of(const std::vector<FrameRecord>& frames, const std::vector<RunRecord>& runs) {
  Index index(example_header(), example_trailer());
  for (const FrameRecord& frame : frames) {
    if (auto fault = index.take(frame)) return *fault;
  }
  for (const RunRecord& run : runs) {
    if (auto fault = index.take(run)) return *fault;
  }
  return index.complete().value_or("");
}

TEST(PackedHeader, IsAcceptedWhenConsistent) { EXPECT_EQ(check(example_header()).value_or(""), ""); }

TEST(PackedHeader, EveryContradictionIsNamed) {
  struct Mutation {
    std::function<void(Header&)> apply;
    std::string_view text;
  };
  const std::vector<Mutation> mutations{
      {[](Header& h) { h.magic[7] = 'C'; }, "it has no magic of a packed layer"},
      {[](Header& h) { h.version = 2; },
       "its format version is 2, this oxbow knows up to 1: use a newer oxbow"},
      {[](Header& h) { h.version = 0; }, "its header's version is 0, not 1"},
      {[](Header& h) { h.incompatible = 4; },
       "it uses features that this oxbow doesn't know (0x4): use a newer oxbow"},
      {[](Header& h) { h.cluster_shift = 11; }, "its header's cluster_shift is 11, not 12 to 20"},
      {[](Header& h) { h.cluster_shift = 64; }, "its header's cluster_shift is 64, not 12 to 20"},
      {[](Header& h) { h.frame_shift = 15; }, "its header's frame_shift is 15, not 16 to 20"},
      {[](Header& h) { h.frame_shift = 21; }, "its header's frame_shift is 21, not 16 to 20"},
      {[](Header& h) { h.cluster_shift = 18; }, "its header's frame_shift is 16, not 18 to 20"},
      {[](Header& h) { h.size = 0; }, "its header's size 0 and max_size 17592186044416 don't fit each other"},
      {[](Header& h) { h.max_size = h.size - 1; },
       "its header's size 1048576 and max_size 1048575 don't fit each other"},
      {[](Header& h) { h.size = h.max_size = ~std::uint64_t{0}; },
       "its header's size 18446744073709551615 and max_size 18446744073709551615 don't fit each other"},
      {[](Header& h) { h.base_visible = h.size + 1; },
       "its header's base_visible 1048577 is above size 1048576 or the base's size 1048576"},
      {[](Header& h) { h.base.size = 5; },
       "its header's base_visible 1048576 is above size 1048576 or the base's size 5"},
      {[](Header& h) { h.epoch = 0; }, "its header's epoch is 0"},
      // NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange): what a damaged file may hold
      {[](Header& h) { h.base.kind = native::BaseKind{3}; }, "its header's base kind is 3, not 0 to 2"},
      {[](Header& h) { h.base_path_length = 0; }, "its header's base_path_length is 0, not 1 to 3072"},
      {[](Header& h) { h.base_path_length = 3073; }, "its header's base_path_length is 3073, not 1 to 3072"},
      {[](Header& h) { h.base_path_length = 2; }, "its header's base_path holds a zero byte"},
      {[](Header& h) { h.reserved0 = 1; }, "its header's reserved bytes are not zero"},
      {[](Header& h) { h.reserved1[799] = 1; }, "its header's reserved bytes are not zero"},
  };
  for (const Mutation& mutation : mutations) {
    Header header = example_header();
    mutation.apply(header);
    seal(header);
    EXPECT_EQ(check(header).value_or(""), mutation.text);
  }
  Header header = example_header();
  header.uuid[3] ^= 1U;
  EXPECT_EQ(check(header).value_or(""), "its header is damaged: its checksum is wrong");
}

TEST(PackedTrailer, EveryContradictionIsNamed) {
  EXPECT_EQ(check(example_trailer(), example_header(), k_file_bytes).value_or(""), "");
  struct Mutation {
    std::function<void(Trailer&)> apply;
    std::string_view text;
  };
  const std::vector<Mutation> mutations{
      {[](Trailer& t) { t.magic[0] = 'Q'; },
       "it has no trailer at its end: it was cut off, or something was appended (69916 bytes)"},
      {[](Trailer& t) { t.header_crc ^= 1U; }, "its trailer belongs to another header"},
      {[](Trailer& t) { t.file_bytes = 1; }, "it is 69916 bytes long, its trailer's file_bytes is 1"},
      {[](Trailer& t) { t.frame_count = ~std::uint64_t{0}; },
       "its trailer's frame_count is 18446744073709551615, more than 69916 bytes hold"},
      {[](Trailer& t) { t.frame_count = k_clusters + 1; },
       "its trailer's frame_count is 257, more than 69916 bytes hold"},
      {[](Trailer& t) { t.run_count = std::uint64_t{1} << 61; },
       "its trailer's run_count is 2305843009213693952, more than 69916 bytes hold"},
      {[](Trailer& t) { t.index_offset = ~std::uint64_t{0}; },
       "its trailer's index_offset is 18446744073709551615, which doesn't fit 2 frames and 3 runs in 69916 "
       "bytes"},
      {[](Trailer& t) { t.run_count = 4; },
       "its trailer's index_offset is 69732, which doesn't fit 2 frames and 4 runs in 69916 bytes"},
      {[](Trailer& t) { t.reserved1 = 9; }, "its trailer's reserved bytes are not zero"},
  };
  for (const Mutation& mutation : mutations) {
    Trailer trailer = example_trailer();
    mutation.apply(trailer);
    seal(trailer);
    EXPECT_EQ(check(trailer, example_header(), k_file_bytes).value_or(""), mutation.text);
  }
  Trailer trailer = example_trailer();
  trailer.run_count ^= 1U;
  EXPECT_EQ(check(trailer, example_header(), k_file_bytes).value_or(""),
            "its trailer is damaged: its checksum is wrong");
}

TEST(PackedIndex, KnowsWhereDataIs) {
  Index index(example_header(), example_trailer());
  for (const FrameRecord& frame : example_frames()) EXPECT_EQ(index.take(frame).value_or(""), "");
  for (const RunRecord& run : example_runs()) EXPECT_EQ(index.take(run).value_or(""), "");
  EXPECT_EQ(index.complete().value_or(""), "");
  EXPECT_EQ(index.data_clusters(), 17U);
  EXPECT_EQ(index.zero_clusters(), 3U);
  EXPECT_EQ(index.content_bytes(0), 65536U);
  EXPECT_EQ(index.content_bytes(1), 4096U);
  EXPECT_EQ(index.runs()[2].data_first, 16U);
  EXPECT_EQ(index.find(0), 0U);
  EXPECT_EQ(index.find(16), 0U);
  EXPECT_EQ(index.find(17), 1U);
  EXPECT_EQ(index.find(20), 2U);
  EXPECT_EQ(index.find(255), 2U);
  EXPECT_EQ(index.find(256), 3U);
}

TEST(PackedIndex, EveryFrameThatIsWrongIsNamed) {
  struct Mutation {
    std::function<void(std::vector<FrameRecord>&)> apply;
    std::string_view text;
  };
  using Frames = std::vector<FrameRecord>;
  const std::vector<Mutation> mutations{
      {[](Frames&) {}, ""},
      {[](Frames& f) { f[0].offset = 0; },
       "frame record 0: offset is 0, not 4096, where the one before ends"},
      {[](Frames& f) { f[1].offset = 4096; },
       "frame record 1: offset is 4096, not 69632, where the one before ends"},
      {[](Frames& f) { std::swap(f[0], f[1]); },
       "frame record 0: offset is 69632, not 4096, where the one before ends"},
      // NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange): what a damaged file may hold
      {[](Frames& f) { f[1].encoding = Encoding{2}; }, "frame record 1: encoding is 2, not 0 or 1"},
      {[](Frames& f) { f[1].length = 0; }, "frame record 1: length is 0, not 1 to 65536"},
      {[](Frames& f) { f[1].length = 65537; }, "frame record 1: length is 65537, not 1 to 65536"},
      {[](Frames& f) { f[1].length = 101; }, "frame record 1: length is 101, which leads into the index"},
      {[](Frames& f) { f[1].length = 99; }, "its frames end at byte 69731, its index begins at 69732"},
      {[](Frames& f) { f[0].encoding = Encoding::zstd; },
       "frame record 0: length is 65536, which is not below its 65536 bytes of clusters"},
      {[](Frames& f) { f[1].encoding = Encoding::raw; },
       "frame record 1: length is 100, which is not its 4096 bytes of clusters"},
      {[](Frames& f) { f.push_back(f[1]); }, "frame record 2: number is 2, more than there are"},
  };
  for (const Mutation& mutation : mutations) {
    auto frames = example_frames();
    mutation.apply(frames);
    EXPECT_EQ(fault_of(frames, example_runs()), mutation.text);
  }
}

TEST(PackedIndex, EveryRunThatIsWrongIsNamed) {
  struct Mutation {
    std::function<void(std::vector<RunRecord>&)> apply;
    std::string_view text;
  };
  using Runs = std::vector<RunRecord>;
  const std::vector<Mutation> mutations{
      {[](Runs& r) { r[1].first = 16; }, "run record 1: first is 16, below 17, where the one before ends"},
      {[](Runs& r) { std::swap(r[0], r[2]); },
       "run record 1: first is 17, below 256, where the one before ends"},
      {[](Runs& r) { r[2].first = 256; }, "run record 2: first is 256, beyond the last of 256 clusters"},
      {[](Runs& r) { r[2].first = ~std::uint64_t{0}; },
       "run record 2: first is 18446744073709551615, beyond the last of 256 clusters"},
      {[](Runs& r) { r[2].count = 0; }, "run record 2: count is 0, not 1 to 1"},
      {[](Runs& r) { r[2].count = ~std::uint64_t{0}; },
       "run record 2: count is 18446744073709551615, not 1 to 1"},
      // NOLINTNEXTLINE(clang-analyzer-optin.core.EnumCastOutOfRange): what a damaged file may hold
      {[](Runs& r) { r[1].kind = RunKind{2}; }, "run record 1: kind is 2, not 1 or 3"},
      {[](Runs& r) { r[1].reserved = 8; }, "run record 1: reserved is 8, not 0"},
      {[](Runs& r) { r[1].kind = RunKind::data; },
       "run record 1: first is 17, which only goes on with the one before"},
      {[](Runs& r) { r.push_back(r[2]); }, "run record 3: number is 3, more than there are"},
      {[](Runs& r) { r[2].kind = RunKind::zero; },
       "its runs have 16 clusters of data, which are 1 frames, but it has 2"},
      {[](Runs& r) { r.erase(r.begin() + 1); }, "it has 2 runs, its trailer's run_count is 3"},
  };
  for (const Mutation& mutation : mutations) {
    auto runs = example_runs();
    mutation.apply(runs);
    EXPECT_EQ(fault_of(example_frames(), runs), mutation.text);
  }
}

}  // namespace
}  // namespace oxbow::packed
