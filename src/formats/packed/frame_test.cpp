// SPDX-License-Identifier: Apache-2.0
#include "formats/packed/frame.h"

#include <gtest/gtest.h>
#include <zstd.h>

#include <algorithm>
#include <random>

#include "formats/native/codec.h"

namespace oxbow::packed {
namespace {

std::vector<std::byte> random_content(std::uint64_t seed, std::size_t bytes) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> content(bytes);
  std::ranges::generate(content, [&] { return static_cast<std::byte>(random()); });
  return content;
}

std::vector<std::byte> compress(std::span<const std::byte> content) {
  std::vector<std::byte> stored(ZSTD_compressBound(content.size()));
  stored.resize(ZSTD_compress(stored.data(), stored.size(), content.data(), content.size(), 3));
  return stored;
}

// A record that fits these bytes, as whoever wants to deceive would make it.
FrameRecord record_of(std::span<const std::byte> stored, Encoding encoding, std::uint32_t content_crc = 0) {
  return {.offset = 4096,
          .length = static_cast<std::uint32_t>(stored.size()),
          .encoding = encoding,
          .stored_crc = native::crc32c(stored),
          .content_crc = content_crc};
}

TEST(Frame, ComesBackAsItWas) {
  for (const int level : {0, 1, 3, 19}) {
    for (const std::size_t bytes : {std::size_t{4096}, std::size_t{65536}, std::size_t{1} << 20}) {
      Compressor compressor(level);
      Decompressor decompressor;
      auto content = random_content(bytes, bytes);
      std::fill_n(content.begin(), bytes / 2, std::byte{7});
      std::vector<std::byte> stored;
      const FrameRecord record = compressor.encode(content, stored);
      EXPECT_EQ(record.encoding, level == 0 ? Encoding::raw : Encoding::zstd);
      EXPECT_EQ(record.length, stored.size());
      std::vector<std::byte> out(bytes);
      EXPECT_EQ(decompressor.decode(record, stored, out), nullptr);
      EXPECT_EQ(out, content);
    }
  }
}

TEST(Frame, WhatDoesNotShrinkIsStoredAsItIs) {
  Compressor compressor(3);
  const auto content = random_content(1, 65536);
  std::vector<std::byte> stored;
  EXPECT_EQ(compressor.encode(content, stored).encoding, Encoding::raw);
  EXPECT_EQ(stored, content);
}

TEST(Frame, EveryFlippedBitIsFound) {
  Compressor compressor(3);
  Decompressor decompressor;
  auto content = random_content(2, 4096);
  std::fill_n(content.begin(), 3900, std::byte{7});
  std::vector<std::byte> stored;
  const FrameRecord record = compressor.encode(content, stored);
  ASSERT_EQ(record.encoding, Encoding::zstd);
  std::vector<std::byte> out(content.size());
  for (std::size_t bit = 0; bit < stored.size() * 8; ++bit) {
    stored[bit / 8] ^= std::byte{1} << (bit % 8);
    EXPECT_STREQ(decompressor.decode(record, stored, out), "its checksum is wrong") << bit;
    stored[bit / 8] ^= std::byte{1} << (bit % 8);
  }
  EXPECT_EQ(decompressor.decode(record, stored, out), nullptr);
}

// With right checksums: what holds more, or less, than it may.
TEST(Frame, NeverHoldsMoreThanItsClusters) {
  Decompressor decompressor;
  std::vector<std::byte> out(4096 + 16, std::byte{0x5a});
  const auto content = std::span(out).first(4096);
  for (const std::size_t bytes :
       {std::size_t{64} << 20, std::size_t{4097}, std::size_t{4095}, std::size_t{0}}) {
    const auto bomb = compress(std::vector<std::byte>(bytes));
    EXPECT_STREQ(decompressor.decode(record_of(bomb, Encoding::zstd), bomb, content),
                 "it doesn't hold as many bytes as its clusters have");
  }
  EXPECT_TRUE(
      std::ranges::all_of(std::span(out).subspan(4096), [](std::byte b) { return b == std::byte{0x5a}; }));
  const auto raw = random_content(3, 4095);
  EXPECT_STREQ(decompressor.decode(record_of(raw, Encoding::raw), raw, content),
               "it has another length than its clusters");
  const auto longer = random_content(3, 4096);
  FrameRecord record = record_of(longer, Encoding::raw);
  EXPECT_STREQ(decompressor.decode(record, std::span(longer).first(4000), content),
               "it has another length than its record says");
}

TEST(Frame, IsOneFrameOfZstdAndNothingElse) {
  Decompressor decompressor;
  std::vector<std::byte> out(4096);
  const std::vector<std::byte> content(4096, std::byte{1});
  const auto crc = native::crc32c(content);
  const auto sound = compress(content);
  EXPECT_EQ(decompressor.decode(record_of(sound, Encoding::zstd, crc), sound, out), nullptr);
  auto twice = sound;
  twice.insert(twice.end(), sound.begin(), sound.end());
  EXPECT_STREQ(decompressor.decode(record_of(twice, Encoding::zstd, crc), twice, out),
               "it is not one whole frame of zstd");
  auto cut = sound;
  cut.pop_back();
  EXPECT_STREQ(decompressor.decode(record_of(cut, Encoding::zstd, crc), cut, out),
               "it is not one whole frame of zstd");
  // A skippable frame: magic 0x184d2a50, 4 bytes of length, which may be skipped, but not here.
  std::vector<std::byte> skippable{std::byte{0x50}, std::byte{0x2a}, std::byte{0x4d}, std::byte{0x18},
                                   std::byte{0},    std::byte{0},    std::byte{0},    std::byte{0}};
  skippable.insert(skippable.end(), sound.begin(), sound.end());
  EXPECT_NE(decompressor.decode(record_of(skippable, Encoding::zstd, crc), skippable, out), nullptr);
  const auto noise = random_content(5, 300);
  EXPECT_STREQ(decompressor.decode(record_of(noise, Encoding::zstd, crc), noise, out),
               "it doesn't hold as many bytes as its clusters have");
  EXPECT_STREQ(decompressor.decode(record_of(sound, Encoding::zstd, crc + 1), sound, out),
               "the checksum of what it holds is wrong");
}

}  // namespace
}  // namespace oxbow::packed
