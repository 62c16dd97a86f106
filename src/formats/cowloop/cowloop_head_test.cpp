// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "formats/cowloop/head.h"

namespace oxbow::cowloop {
namespace {

using Block = std::array<std::byte, k_block_bytes>;

// Heads are put down byte by byte here, as the specification has them, so that nothing of the codec is its own witness.
void put(Block& block, std::size_t at, std::initializer_list<int> bytes) {
  for (const int byte : bytes) block[at++] = static_cast<std::byte>(byte);
}

// Of 20,000 blocks: bitmap 2,500 bytes, rounded up to 3,072; data at 4,096. 258 blocks in use.
Block wide_head() {
  Block block{};
  put(block, 0, {0x7f, 0x43, 0x4f, 0x57, 1, 0, 0, 0});
  put(block, 8, {0x00, 0x04, 0, 0, 0, 0, 0, 0});         // mapunit 1024
  put(block, 16, {0x00, 0x0c, 0, 0, 0, 0, 0, 0});        // mapsize 3072
  put(block, 24, {0x00, 0x10, 0, 0, 0, 0, 0, 0});        // doffset 4096
  put(block, 32, {0x20, 0x4e, 0, 0, 0, 0, 0, 0});        // rdoblocks 20000
  put(block, 40, {0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0});  // rdofingerprint
  put(block, 48, {0x02, 0x01, 0, 0, 0, 0, 0, 0});        // cowused 258
  return block;
}

Block narrow_head() {
  Block block{};
  put(block, 0, {0x7f, 0x43, 0x4f, 0x57, 1, 0, 0, 0});
  put(block, 8, {0x00, 0x04, 0, 0});
  put(block, 12, {0x00, 0x0c, 0, 0});
  put(block, 16, {0x00, 0x10, 0, 0});
  put(block, 20, {0x20, 0x4e, 0, 0});
  put(block, 24, {0x12, 0x34, 0x56, 0x78});
  put(block, 28, {0x02, 0x01, 0, 0});
  return block;
}

std::string fault_of(const Block& block) {
  const auto head = parse(block);
  return head ? "accepted" : head.error().text;
}

TEST(CowloopHead, BothLayoutsAreRecognisedByTheirOwnFields) {
  for (const Layout layout : {Layout::bytes_8, Layout::bytes_4}) {
    const auto head = parse(layout == Layout::bytes_8 ? wide_head() : narrow_head());
    ASSERT_TRUE(head) << head.error().text;
    EXPECT_EQ(head->layout, layout);
    EXPECT_EQ(head->version, 1);
    EXPECT_FALSE(head->dirty);
    EXPECT_FALSE(head->packed);
    EXPECT_EQ(head->block_bytes, 1024U);
    EXPECT_EQ(head->map_bytes, 3072U);
    EXPECT_EQ(head->data_offset, 4096U);
    EXPECT_EQ(head->base_blocks, 20000U);
    EXPECT_EQ(head->fingerprint, 0x78563412U);
    EXPECT_EQ(head->used_blocks, 258U);
    EXPECT_EQ(head->device_bytes(), 20000U * 1024);
    EXPECT_EQ(head->file_bytes(), 4096U + (20000U * 1024));
  }
}

TEST(CowloopHead, EncodesTheSameBytesAgain) {
  for (const Block& written : {wide_head(), narrow_head()}) {
    Block again;
    again.fill(std::byte{0xee});
    encode(*parse(written), again);
    EXPECT_EQ(again, written);
  }
}

TEST(CowloopHead, FlagsAreRead) {
  for (Block block : {wide_head(), narrow_head()}) {
    block[6] = std::byte{1};
    EXPECT_TRUE(parse(block)->dirty);
    EXPECT_FALSE(parse(block)->packed);
    block[6] = std::byte{2};
    EXPECT_FALSE(parse(block)->dirty);
    EXPECT_TRUE(parse(block)->packed);
    block[6] = std::byte{3};
    Block again;
    encode(*parse(block), again);
    EXPECT_EQ(again, block);
  }
}

TEST(CowloopHead, FingerprintIsWrittenSignExtendedAndReadInItsLowBits) {
  Block block = wide_head();
  put(block, 40, {0x12, 0x34, 0x56, 0x98, 0xff, 0xff, 0xff, 0xff});
  const auto head = parse(block);
  EXPECT_EQ(head->fingerprint, 0x98563412U);
  Block again;
  encode(*head, again);
  EXPECT_EQ(again, block);
  // What a 32-bit program on such a machine wrote, or any other upper half, is the same fingerprint.
  put(block, 44, {0, 0, 0, 0});
  EXPECT_EQ(*parse(block), *head);
}

TEST(CowloopHead, MarkOfAFileKeptInOrder) {
  for (Block block : {wide_head(), narrow_head()}) {
    const bool wide = parse(block)->layout == Layout::bytes_8;
    block[6] = std::byte{1};
    EXPECT_FALSE(parse(block)->kept_in_order());
    EXPECT_EQ(parse(block)->used_blocks, 258U);
    put(block, wide ? 48 : 28, {0xff, 0xff, 0xff, 0xff});
    if (wide) put(block, 52, {0xff, 0xff, 0xff, 0xff});
    for (int i = 0; i < 32; ++i) block[512 + static_cast<std::size_t>(i)] = static_cast<std::byte>(i + 1);
    const auto head = parse(block);
    ASSERT_TRUE(head);
    EXPECT_TRUE(head->kept_in_order());
    EXPECT_EQ(head->used_blocks, k_in_order);
    EXPECT_EQ(head->boot_id[0], 1);
    EXPECT_EQ(head->session_id[15], 32);
    Block again;
    encode(*head, again);
    EXPECT_EQ(again, block);
    Head clean = *head;
    clean.dirty = false;
    clean.used_blocks = 258;
    encode(clean, again);
    EXPECT_EQ(again, wide ? wide_head() : narrow_head()) << "a clean head names no session";
    EXPECT_FALSE(parse(again)->session_left);
    again[512 + 31] = std::byte{1};  // of a mark that was cut off between its sectors
    EXPECT_TRUE(parse(again)->session_left);
    EXPECT_EQ(parse(again)->session_id, Uuid{});
  }
}

TEST(CowloopHead, MarkOfAMergeThatIsNotFinished) {
  for (Block block : {wide_head(), narrow_head()}) {
    const Head before = *parse(block);
    put(block, 576, {'O', 'X', 'B', 'W', 'M', 'R', 'G', 'E', 0x11, 0x22, 0x33, 0x84, 0xee, 0xdd, 0xcc, 0x7b});
    const auto head = parse(block);
    ASSERT_TRUE(head);
    EXPECT_EQ(head->merging, 0x84332211U);
    Block again;
    encode(*head, again);
    EXPECT_EQ(again, block);
    block[588] = std::byte{0};
    EXPECT_EQ(*parse(block), before) << "what an original left there is no mark";
  }
}

TEST(CowloopHead, WhatIsNoCowfileIsTold) {
  Block block{};
  EXPECT_EQ(fault_of(block), "its magic is 0x00000000, and a cowfile's is 0x574f437f");
  EXPECT_EQ(parse(block).error().fault, Fault::no_magic);
  EXPECT_FALSE(has_magic(block));
  EXPECT_TRUE(has_magic(wide_head()));
  const Block start = wide_head();
  EXPECT_FALSE(has_magic(std::span(start).first(3)));
}

TEST(CowloopHead, BigEndianIsRefusedByName) {
  Block block{};
  put(block, 0, {0x57, 0x4f, 0x43, 0x7f, 0, 1, 0, 0});
  put(block, 8, {0, 0, 0x04, 0});
  EXPECT_TRUE(has_magic(block));
  EXPECT_EQ(parse(block).error().fault, Fault::big_endian);
  EXPECT_EQ(
      fault_of(block),
      "it is a cowfile of a big-endian machine, which oxbow doesn't read: merge it with cowmerge on such a "
      "machine");
}

TEST(CowloopHead, NewerVersionIsRefused) {
  Block block = wide_head();
  block[4] = std::byte{2};
  EXPECT_EQ(fault_of(block), "its version is 2, and oxbow knows version 1 alone");
  EXPECT_EQ(parse(block).error().fault, Fault::version);
  block[4] = std::byte{0};
  EXPECT_EQ(fault_of(block), "its version is 0, and oxbow knows version 1 alone");
}

struct Mutation {
  std::size_t at;
  std::vector<int> bytes;
  std::string_view text;
};

void expect_refused(const Block& sound, const std::vector<Mutation>& mutations) {
  for (const Mutation& mutation : mutations) {
    Block block = sound;
    for (std::size_t i = 0; i < mutation.bytes.size(); ++i)
      block[mutation.at + i] = static_cast<std::byte>(mutation.bytes[i]);
    const auto head = parse(block);
    ASSERT_FALSE(head) << mutation.text;
    EXPECT_EQ(head.error().text, mutation.text);
    EXPECT_EQ(head.error().fault, Fault::field);
  }
}

TEST(CowloopHead, EveryWrongFieldOf8BytesIsNamed) {
  expect_refused(
      wide_head(),
      {
          {6, {4}, "its flags are 0x0004, of which 0x0004 mean nothing in version 1"},
          {6, {1, 0x80}, "its flags are 0x8001, of which 0x8000 mean nothing in version 1"},
          {8, {0, 0}, "its mapunit is 0 as 8 bytes and 0 as 4, and has to be 1024"},
          {8, {0, 8}, "its mapunit is 2048 as 8 bytes and 2048 as 4, and has to be 1024"},
          {8,
           {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
           "its mapunit is 18446744073709551615 as 8 bytes and 4294967295 as 4, and has to be 1024"},
          {12,
           {1},
           "its mapunit is 4294968320 as 8 bytes and has to be 1024; as 4 bytes that is right, but then its "
           "mapsize "
           "is 1, which is no multiple of 1024"},
          {16, {0, 0}, "its mapsize is 0, and rdoblocks 20000 wants 3072"},
          {16, {1}, "its mapsize is 3073, and rdoblocks 20000 wants 3072"},
          {17, {0x08}, "its mapsize is 2048, and rdoblocks 20000 wants 3072"},
          {23, {0x80}, "its mapsize is 9223372036854778880, and rdoblocks 20000 wants 3072"},
          {25, {0x04}, "its doffset is 1024, and mapsize 3072 wants 4096"},
          {25, {0x20}, "its doffset is 8192, and mapsize 3072 wants 4096"},
          {32, {0, 0}, "its rdoblocks is 0: there is no device without blocks"},
          {34, {1}, "its mapsize is 3072, and rdoblocks 85536 wants 11264"},
          {39, {0x80}, "its rdoblocks is 9223372036854795808, and can be 1125899906842624 at the most"},
          {48, {0x21, 0x4e}, "its cowused is 20001, more than its rdoblocks 20000"},
          {48,
           {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
           "its cowused is 18446744073709551615, more than its rdoblocks 20000"},
      });
}

TEST(CowloopHead, EveryWrongFieldOf4BytesIsNamed) {
  expect_refused(
      narrow_head(),
      {
          {12, {0, 0}, "its rdoblocks is 0: there is no device without blocks"},
          {13, {0x10}, "its mapsize is 4096, and rdoblocks 20000 wants 3072"},
          {15, {0x80}, "its mapsize is 2147486720, and rdoblocks 20000 wants 3072"},
          {17, {0x08}, "its doffset is 2048, and mapsize 3072 wants 4096"},
          {20, {0, 0}, "its rdoblocks is 0: there is no device without blocks"},
          {23, {0x80}, "its mapsize is 3072, and rdoblocks 2147503648 wants 268438528"},
          {28, {0xff, 0xff, 0xff, 0xff}, "its cowused is 4294967295, more than its rdoblocks 20000"},
      });
}

TEST(CowloopHead, SizesFollowFromTheBlocks) {
  EXPECT_EQ(map_bytes(1), 1024U);
  EXPECT_EQ(map_bytes(8192), 1024U);
  EXPECT_EQ(map_bytes(8193), 2048U);
  EXPECT_EQ(map_bytes(std::uint64_t{1} << 32), std::uint64_t{512} << 20);
  EXPECT_EQ(data_offset(1024), 4096U);
  EXPECT_EQ(data_offset(3072), 4096U);
  EXPECT_EQ(data_offset(4096), 8192U);
  EXPECT_EQ(data_offset(std::uint64_t{512} << 20), (std::uint64_t{512} << 20) + 4096);
  EXPECT_EQ(blocks_of((std::uint64_t{4} << 40) + 1023), std::uint64_t{1} << 32);
  EXPECT_EQ(blocks_of(1023), 0U);
}

TEST(CowloopHead, LargestDevicesOfBothLayouts) {
  Block block;
  Head head = fresh_head(Layout::bytes_8, k_most_blocks, 0x80000001);
  encode(head, block);
  EXPECT_EQ(parse(block).value(), head);
  EXPECT_LT(head.file_bytes(), std::uint64_t{1} << 63);
  head = fresh_head(Layout::bytes_4, k_most_blocks_4, 0x80000001);
  head.used_blocks = k_most_blocks_4;
  encode(head, block);
  EXPECT_EQ(parse(block).value(), head);
  EXPECT_EQ(head.map_bytes, std::uint64_t{512} << 20);
  EXPECT_EQ(head.file_bytes(), (std::uint64_t{512} << 20) + 4096 + (std::uint64_t{4} << 40) - 1024);
  head.dirty = true;
  head.used_blocks = k_in_order;
  encode(head, block);
  EXPECT_EQ(parse(block).value(), head);
}

}  // namespace
}  // namespace oxbow::cowloop
