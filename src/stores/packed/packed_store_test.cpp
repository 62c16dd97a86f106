// SPDX-License-Identifier: Apache-2.0
#include "stores/packed/packed_store.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <thread>

#include "stores/packed/packed_index.h"
#include "stores/packed/test_packed.h"
#include "support/effort.h"

namespace oxbow {
namespace {

using testing::make_packed_sample;
using testing::PackedSample;
using testing::PackedShape;
using testing::store_of;

std::shared_ptr<PackedStore> open(Queue& queue, std::span<const std::byte> file,
                                  std::uint64_t cache_bytes = k_packed_cache_bytes) {
  auto store = PackedStore::open(queue, store_of(queue, file), cache_bytes);
  EXPECT_TRUE(store) << store.error().text();
  return *store;
}

std::string open_error(Queue& queue, std::span<const std::byte> file) {
  auto store = PackedStore::open(queue, store_of(queue, file));
  return store ? "" : store.error().text();
}

// Random ranges, read with and without waiting, against the bytes that were packed.
void read_at_random(Queue& queue, PackedStore& store, const std::vector<std::byte>& data, std::uint64_t seed,
                    std::uint64_t reads) {
  std::mt19937_64 random(seed);
  std::vector<std::byte> out;
  for (std::uint64_t i = 0; i < reads; ++i) {
    const std::uint64_t at = random() % data.size();
    const std::uint64_t length = 1 + (random() % std::min<std::uint64_t>(data.size() - at, 200'000));
    out.assign(length, std::byte{0xee});
    if (random() % 2 == 0) {
      const Progress now = [&] {
        Io io(queue, [](Io&) noexcept { FAIL() << "completed without having been pending"; });
        return store.read(io, at, out, ReadMode::no_wait);
      }();
      ASSERT_FALSE(now.is_pending());
      if (now.is_would_block()) continue;
      ASSERT_TRUE(now.status().ok());
    } else {
      ASSERT_TRUE(read_blocking(queue, store, at, out).ok());
    }
    ASSERT_TRUE(std::ranges::equal(out, std::span(data).subspan(at, length)))
        << "at " << at << ", " << length;
  }
}

TEST(PackedStore, ReadsWhatWasPacked) {
  const std::uint64_t seed = test::seed(7);
  Queue queue;
  for (std::uint32_t cluster_shift = 12; cluster_shift <= 20; ++cluster_shift) {
    for (const int level : {0, 1}) {
      const PackedShape shape{
          .size_bytes = (std::uint64_t{1} << cluster_shift) * (cluster_shift < 17 ? 150U : 40U) - 1000,
          .cluster_shift = cluster_shift,
          .frame_shift = std::max(cluster_shift, 17U),
          .level = level};
      const PackedSample sample = make_packed_sample(seed + cluster_shift, shape);
      // A cache of a few frames, so that they come and go.
      const auto store = open(queue, sample.file, std::uint64_t{3} << shape.frame_shift);
      ASSERT_EQ(store->size(), sample.data.size());
      read_at_random(queue, *store, sample.data, seed, test::repetitions(60, 1000));
      EXPECT_LE(store->cached_bytes(), std::uint64_t{3} << shape.frame_shift);
      EXPECT_EQ(store->damage(), "");
    }
  }
}

TEST(PackedStore, AnswersAtOnceOnlyWhatIsCached) {
  Queue queue;
  const PackedSample sample = make_packed_sample(3, {});
  const auto store = open(queue, sample.file);
  std::vector<std::byte> out(100);
  Io io(queue, [](Io&) noexcept {});
  EXPECT_TRUE(store->read(io, 65'500, out, ReadMode::no_wait).is_would_block());
  ASSERT_TRUE(read_blocking(queue, *store, 10, std::span(out).first(1)).ok());
  EXPECT_TRUE(store->read(io, 65'400, out, ReadMode::no_wait).is_done());
  EXPECT_TRUE(store->read(io, 65'500, out, ReadMode::no_wait).is_would_block())
      << "it needs the next frame too";
  EXPECT_EQ(store->cached_bytes(), 65'536U);
}

TEST(PackedStore, CannotBeWritten) {
  Queue queue;
  const PackedSample sample = make_packed_sample(3, {});
  const auto store = open(queue, sample.file);
  const std::vector<std::byte> data(100);
  EXPECT_FALSE(store->writable());
  EXPECT_EQ(write_blocking(queue, *store, 0, data).error_number(), EROFS);
  const auto run = [&](auto&& submit) { return run_blocking(queue, submit).error_number(); };
  EXPECT_EQ(run([&](Io& io) { return store->zero(io, {0, 10}, ZeroMode::may_punch); }), EROFS);
  EXPECT_EQ(run([&](Io& io) { return store->discard(io, {0, 10}); }), EROFS);
  EXPECT_EQ(run([&](Io& io) { return store->allocate(io, {0, 10}); }), EROFS);
  EXPECT_EQ(run([&](Io& io) { return store->grow(io, std::uint64_t{1} << 30); }), EROFS);
  EXPECT_EQ(run([&](Io& io) { return store->sync(io); }), 0);
}

// Every byte of the file, changed: the opening refuses it, or the frame that it is in.
TEST(PackedStore, EveryChangedByteIsFound) {
  Queue queue;
  PackedSample sample = make_packed_sample(11, {.size_bytes = 1 << 20});
  const auto sound = open(queue, sample.file);
  const std::uint64_t frames_end = sound->index().trailer().index_offset;
  const std::uint64_t step = test::full_run() ? 1 : 61;
  std::vector<std::byte> out(sample.data.size());
  for (std::uint64_t at = 0; at < sample.file.size(); at += step) {
    sample.file[at] ^= std::byte{0x10};
    auto store = PackedStore::open(queue, store_of(queue, sample.file));
    const bool in_frames = at >= packed::k_header_bytes && at < frames_end;
    ASSERT_EQ(store.has_value(), in_frames) << at;
    if (store) {
      const auto& frames = (*store)->index().frames();
      const auto frame = std::ranges::upper_bound(frames, at, {}, &packed::FrameRecord::offset) - 1;
      const auto number = static_cast<std::uint64_t>(frame - frames.begin());
      ASSERT_EQ(read_blocking(queue, **store, 0, out).error_number(), EIO) << at;
      ASSERT_EQ(read_blocking(queue, **store, 0, out).error_number(), EIO) << "again, at " << at;
      EXPECT_EQ((*store)->damage(), "cannot read packed layer: " + (*store)->describe() + ": frame " +
                                        std::to_string(number) + " at byte " + std::to_string(frame->offset) +
                                        " is damaged: its checksum is wrong");
      // What is in other frames is not concerned.
      const std::uint64_t other = number == 0 ? (*store)->index().frame_bytes() : 0;
      const auto piece = std::span(out).first(4096);
      ASSERT_TRUE(read_blocking(queue, **store, other, piece).ok()) << at;
      EXPECT_TRUE(std::ranges::equal(piece, std::span(sample.data).subspan(other, 4096)));
    }
    sample.file[at] ^= std::byte{0x10};
  }
}

TEST(PackedStore, RefusesEveryTruncation) {
  Queue queue;
  const PackedSample sample = make_packed_sample(11, {.size_bytes = 1 << 20});
  for (std::uint64_t length = 1; length < sample.file.size(); length += test::full_run() ? 1U : 97U) {
    const std::string error = open_error(queue, std::span(sample.file).first(length));
    ASSERT_TRUE(error.starts_with("cannot open packed layer: ram of ")) << length << ": " << error;
  }
}

// Two frames changed places, checksums and all: each is sound, but neither is where its record says.
TEST(PackedStore, FindsFramesInEachOthersPlace) {
  Queue queue;
  PackedSample sample = make_packed_sample(5, {.level = 0});
  const auto first = sample.file.begin() + packed::k_header_bytes;
  std::swap_ranges(first, first + 65536, first + 65536);
  const auto store = open(queue, sample.file);
  std::vector<std::byte> out(4096);
  EXPECT_EQ(read_blocking(queue, *store, 0, out).error_number(), EIO);
  EXPECT_EQ(read_blocking(queue, *store, 65536, out).error_number(), EIO);
}

// A trailer that claims an index of gigabytes, in a sparse file that is as long: refused without taking memory for it.
TEST(PackedStore, RefusesAnIndexThatIsNotThere) {
  Queue queue;
  const PackedSample sample = make_packed_sample(5, {});
  packed::Header header = sample.header;
  header.magic = packed::k_magic;
  header.version = packed::k_version;
  header.size = header.max_size = std::uint64_t{1} << 50;
  packed::seal(header);
  packed::Trailer trailer{};
  trailer.magic = packed::k_trailer_magic;
  trailer.header_crc = header.crc;
  trailer.run_count = 1 << 20;
  trailer.index_offset = packed::k_header_bytes;
  trailer.file_bytes = packed::k_header_bytes + (trailer.run_count * 24) + 64;
  packed::seal(trailer);
  auto file = RamStore::create({.size_bytes = trailer.file_bytes});
  ASSERT_TRUE(file);
  ASSERT_TRUE(write_struct(queue, **file, 0, header).ok());
  ASSERT_TRUE(write_struct(queue, **file, trailer.file_bytes - 64, trailer).ok());
  auto store = PackedStore::open(queue, *file);
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().why(), "its index is damaged: its checksum is wrong");
  // And with the right checksum the first of them that cannot be.
  const std::vector<std::byte> zeros(1 << 20);
  for (std::uint64_t left = trailer.run_count * 24; left > 0; left -= zeros.size())
    trailer.index_crc = native::crc32c(zeros, trailer.index_crc);
  packed::seal(trailer);
  ASSERT_TRUE(write_struct(queue, **file, trailer.file_bytes - 64, trailer).ok());
  store = PackedStore::open(queue, *file);
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().why(), "run record 0: kind is 0, not 1 or 3");
}

TEST(PackedStore, IsReadByManyThreads) {
  const std::uint64_t seed = test::seed(9);
  Queue queue;
  const PackedSample sample = make_packed_sample(seed, {});
  const auto store = open(queue, sample.file, std::uint64_t{5} << 16);
  std::vector<std::jthread> threads;
  for (std::uint64_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      Queue own;
      read_at_random(own, *store, sample.data, seed + i, test::repetitions(200, 3000));
    });
  }
}

TEST(FrameCache, DropsWhatWasNotUsedForLongest) {
  const auto content = [](std::size_t bytes) { return std::make_shared<std::vector<std::byte>>(bytes); };
  FrameCache cache(100);
  cache.insert(1, content(40));
  cache.insert(2, content(40));
  EXPECT_NE(cache.find(1), nullptr);
  cache.insert(3, content(40));
  EXPECT_EQ(cache.find(2), nullptr);
  EXPECT_NE(cache.find(1), nullptr);
  EXPECT_NE(cache.find(3), nullptr);
  EXPECT_EQ(cache.bytes(), 80U);
  cache.insert(4, content(101));
  EXPECT_EQ(cache.find(4), nullptr) << "it alone is more than fits";
  const auto held = cache.find(1);
  cache.insert(5, content(100));
  EXPECT_EQ(cache.find(1), nullptr);
  EXPECT_EQ(held->size(), 40U) << "what is in use stays";
  EXPECT_EQ(cache.bytes(), 100U);
}

}  // namespace
}  // namespace oxbow
