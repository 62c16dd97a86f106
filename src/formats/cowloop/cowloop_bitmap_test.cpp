// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "formats/cowloop/bitmap.h"
#include "formats/cowloop/fingerprint.h"

namespace oxbow::cowloop {
namespace {

TEST(CowloopBitmap, LowestBitComesFirst) {
  std::vector<std::byte> bitmap(1024);
  set(bitmap, 0);
  set(bitmap, 9);
  set(bitmap, 8191);
  EXPECT_EQ(bitmap[0], std::byte{0x01});
  EXPECT_EQ(bitmap[1], std::byte{0x02});
  EXPECT_EQ(bitmap[1023], std::byte{0x80});
  EXPECT_TRUE(is_set(bitmap, 9));
  EXPECT_FALSE(is_set(bitmap, 8));
  EXPECT_EQ(count_set(bitmap), 3U);
}

TEST(CowloopBitmap, BlocksLieBehindTheBitmapWithoutOverflow) {
  const Head head = fresh_head(Layout::bytes_8, std::uint64_t{1} << 40, 0);
  EXPECT_EQ(block_at(head, 0), head.data_offset);
  EXPECT_EQ(block_at(head, (std::uint64_t{1} << 33) + 5), head.data_offset + (std::uint64_t{1} << 43) + 5120);
}

TEST(CowloopBitmap, RunsAreThoseOfASlowSearch) {
  constexpr unsigned k_seed = 20260101;
  std::mt19937 random(k_seed);
  for (int round = 0; round < 200; ++round) {
    const std::size_t size = 1 + (random() % 40);
    std::vector<std::byte> bitmap(size);
    bool value = false;
    for (std::size_t bit = 0; bit < size * 8;) {
      const std::size_t length = 1 + (random() % (round % 2 == 0 ? 9 : 150));
      for (std::size_t end = std::min(size * 8, bit + length); bit < end; ++bit)
        if (value) set(bitmap, bit);
      value = !value;
    }
    std::uint64_t counted = 0;
    for (std::uint64_t from = 0; from <= size * 8; ++from) {
      std::uint64_t first = from;
      while (first < size * 8 && !is_set(bitmap, first)) ++first;
      std::uint64_t end = first;
      while (end < size * 8 && is_set(bitmap, end)) ++end;
      ASSERT_EQ(next_run(bitmap, from), (Range{first, end - first})) << "seed " << k_seed << " from " << from;
      if (from < size * 8 && is_set(bitmap, from)) ++counted;
    }
    EXPECT_EQ(count_set(bitmap), counted) << "seed " << k_seed;
  }
}

std::vector<std::byte> block_with(std::initializer_list<int> bytes) {
  std::vector<std::byte> block(1024);
  std::size_t at = 100;
  for (const int byte : bytes) block[at++] = static_cast<std::byte>(byte);
  return block;
}

TEST(CowloopFingerprint, FirstFourSumsThatAreNotZero) {
  Fingerprint fingerprint;
  EXPECT_EQ(fingerprint.value(), 0U);
  fingerprint.add(block_with({}));
  fingerprint.add(block_with({0x10, 0x02}));
  fingerprint.add(block_with({0xff, 0x01}));  // 256: a sum of 0, though not of zeros
  fingerprint.add(block_with({0xff, 0xff}));  // 510
  EXPECT_EQ(fingerprint.value(), 0xfe12U);
  fingerprint.add(block_with({0x33}));
  EXPECT_FALSE(fingerprint.done());
  fingerprint.add(block_with({0x80, 0x04}));
  EXPECT_TRUE(fingerprint.done());
  fingerprint.add(block_with({0x55}));
  EXPECT_EQ(fingerprint.value(), 0x8433fe12U);
}

}  // namespace
}  // namespace oxbow::cowloop
