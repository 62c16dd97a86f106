// SPDX-License-Identifier: Apache-2.0
// Single rules of the commit ring, each with a power loss that takes all it may.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "crash/world.h"
#include "formats/native/codec.h"
#include "support/effort.h"

namespace oxbow::crash {
namespace {

constexpr std::uint64_t k_cluster = 4096;

// A layer whose ring is ready, after its first full flush. Thread safety: none.
struct RingWorld : World {
  explicit RingWorld(std::uint64_t size_bytes = k_device_bytes) : World(test::seed(), 0) {
    with_ring = true;
    open_layer(size_bytes);
    make_ready();
  }
  void make_ready() {
    EXPECT_TRUE(write_now(k_device_bytes - k_cluster, letters('z')).ok());
    EXPECT_TRUE(flush_now().ok());
    while (queue.step()) {
    }
  }
  // What the store is asked for while `act` runs, one letter each: w write, W durable write, s sync.
  template <typename Act>
  std::string asked(Act&& act) {
    std::string calls;
    store->observe = [&calls](const sim::SimStore::Call& call) {
      if (call.kind == sim::StoreCall::write) calls += 'w';
      if (call.kind == sim::StoreCall::durable_write) calls += 'W';
      if (call.kind == sim::StoreCall::sync) calls += 's';
    };
    act();
    store->observe = nullptr;
    return calls;
  }
  void lose_power() {
    Worst worst;
    power_loss(worst);
  }
};

TEST(CommitRing, ASmallFlushIsOneDurableWrite) {
  RingWorld world;
  ASSERT_TRUE(world.write_now(0, letters('a')).ok());
  EXPECT_EQ(world.asked([&] { ASSERT_TRUE(world.flush_now().ok()); }), "W");
  EXPECT_EQ(world.asked([&] { ASSERT_TRUE(world.flush_now().ok()); }), "") << "nothing has changed since";
  world.lose_power();
  EXPECT_EQ(world.letter(0), 'a');
}

TEST(CommitRing, OverwritesZeroesAndDiscardsAreInItToo) {
  RingWorld world;
  ASSERT_TRUE(world.write_now(0, letters('a', 4 * k_cluster)).ok());
  ASSERT_TRUE(world.flush_now().ok());
  ASSERT_TRUE(world.write_now(512, letters('b', 512)).ok());
  ASSERT_TRUE(run_blocking(world.queue, [&](Io& io) {
                return world.device->discard(io, {k_cluster, k_cluster}, Durability::with_flush);
              }).ok());
  ASSERT_TRUE(run_blocking(world.queue, [&](Io& io) {
                return world.device->zero(io, {2 * k_cluster, 512}, false, Durability::with_flush);
              }).ok());
  EXPECT_EQ(world.asked([&] { ASSERT_TRUE(world.flush_now().ok()); }), "W");
  world.lose_power();
  EXPECT_EQ(world.letter(0), 'a');
  EXPECT_EQ(world.letter(512), 'b');
  EXPECT_EQ(world.letter(1024), 'a');
  EXPECT_EQ(world.letter(k_cluster), '.');
  EXPECT_EQ(world.letter(2 * k_cluster), '.');
  EXPECT_EQ(world.letter(2 * k_cluster + 512), 'a');
}

TEST(CommitRing, ReplayingTwiceIsReplayingOnce) {
  RingWorld world;
  ASSERT_TRUE(world.write_now(0, letters('a')).ok());
  ASSERT_TRUE(world.flush_now().ok());
  ASSERT_TRUE(world.write_now(0, letters('b')).ok());
  ASSERT_TRUE(world.flush_now().ok());
  for (int again = 0; again < 3; ++again) {
    world.lose_power();
    EXPECT_EQ(world.letter(0), 'b');
  }
}

TEST(CommitRing, ACompletedFullFlushLetsRecordsDie) {
  RingWorld world;
  ASSERT_TRUE(world.write_now(0, letters('a')).ok());
  ASSERT_TRUE(world.flush_now().ok());
  // More than there is place for.
  ASSERT_TRUE(world.write_now(0, letters('b', 12 * k_cluster)).ok());
  EXPECT_EQ(world.asked([&] { ASSERT_TRUE(world.flush_now().ok()); }).substr(0, 4), "wsws");
  // The cluster is settled now: durable by itself, and no replay may bring the record back.
  EXPECT_EQ(world.asked([&] { ASSERT_TRUE(world.write_now(0, letters('c'), true).ok()); }), "W");
  world.lose_power();
  EXPECT_EQ(world.letter(0), 'c');
}

TEST(CommitRing, WhatIsInARecordIsNotDurableByOverwritingIt) {
  RingWorld world;
  ASSERT_TRUE(world.write_now(0, letters('a')).ok());
  ASSERT_TRUE(world.flush_now().ok());
  EXPECT_EQ(world.asked([&] { ASSERT_TRUE(world.write_now(0, letters('b'), true).ok()); }), "wW")
      << "the write, then a record of it";
  world.lose_power();
  EXPECT_EQ(world.letter(0), 'b');
}

TEST(CommitRing, SustainsManyFillings) {
  RingWorld world;
  for (unsigned i = 0; i < 100; ++i) {
    const char letter = static_cast<char>('a' + i % 26);
    ASSERT_TRUE(world.write_now(i % 12 * k_cluster, letters(letter)).ok());
    ASSERT_TRUE(world.flush_now().ok());
    if (i % 7 != 0) continue;
    sim::SimDisk copy = *world.disk;
    world.lose_power();
    ASSERT_EQ(world.letter(i % 12 * k_cluster), letter) << "after " << i;
  }
}

// A record makes a page's first cluster durable, but not the room of its slots.
TEST(CommitRing, AReplayGetsTheRoomThatItsPagesNeed) {
  constexpr std::uint64_t k_two_pages = 128 << 20;
  RingWorld world(k_two_pages);
  ASSERT_TRUE(world.write_now(k_two_pages - k_cluster, letters('a')).ok());
  ASSERT_TRUE(world.flush_now().ok());
  world.lose_power();
  world.store->set_full(true);
  EXPECT_TRUE(world.flush_now().ok()) << "no flush may run out of room";
  world.lose_power();
  EXPECT_EQ(world.letter(k_two_pages - k_cluster), 'a');
}

TEST(CommitRing, DamageInTheMiddleIsRefusedNotPassedOver) {
  RingWorld world;
  for (const char letter : {'a', 'b', 'c'}) {
    ASSERT_TRUE(world.write_now(0, letters(letter)).ok());
    ASSERT_TRUE(world.flush_now().ok());
  }
  world.disk->flip_bit(world.superblock.ring_offset + 2 * k_cluster + 100, 3);
  world.device.reset();
  world.store = std::make_shared<sim::SimStore>(world.queue, world.disk, world.options);
  auto opened = CowTarget::open(world.queue, world.store, nullptr, {.writable = true});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().text(),
            "cannot recover layer: disk: its commit ring is damaged at byte 8192, before record 3: writes "
            "that were "
            "flushed cannot be read; see oxbow check and oxbow repair");
}

// As copying a file does that makes holes of zeros: its contents are the same.
TEST(CommitRing, HolesInItAreNotItsEnd) {
  RingWorld world;
  ASSERT_TRUE(world.write_now(0, letters('\0', 4 * k_cluster)).ok());
  ASSERT_TRUE(world.flush_now().ok());
  ASSERT_TRUE(world.write_now(0, letters('a')).ok());
  ASSERT_TRUE(world.flush_now().ok());
  const sim::OperationId dig = world.disk->begin();
  const std::vector<std::byte> zeros(k_cluster);
  std::vector<std::byte> block(k_cluster);
  for (std::uint64_t at = 0; at < (64 << 10); at += k_cluster) {
    const Range range{world.superblock.ring_offset + at, k_cluster};
    world.disk->read(range, block);
    if (block == zeros) world.disk->zero(dig, range, false);
  }
  world.disk->complete(dig);
  world.lose_power();
  EXPECT_EQ(world.letter(0), 'a');
}

TEST(CommitRing, AReaderAsksForRecovery) {
  RingWorld world;
  ASSERT_TRUE(world.write_now(0, letters('a')).ok());
  ASSERT_TRUE(world.flush_now().ok());
  world.device.reset();
  auto opened = CowTarget::open(world.queue, world.store, nullptr, {.writable = false});
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().why(), k_needs_recovery_reason);
}

TEST(CommitRing, ACleanEndLeavesNothingToReplay) {
  RingWorld world;
  ASSERT_TRUE(world.write_now(0, letters('a')).ok());
  ASSERT_TRUE(world.flush_now().ok());
  ASSERT_TRUE(world.device->close(world.queue).ok());
  world.device.reset();
  // Without its ring it is the same.
  const std::vector<std::byte> nothing(64 * k_cluster);
  const sim::OperationId wipe = world.disk->begin();
  world.disk->put(wipe, world.superblock.ring_offset, nothing);
  world.disk->complete(wipe);
  world.open_again();
  EXPECT_EQ(world.letter(0), 'a');
}

// The kernel took the page for clean and has dropped it: what is read back is not what was written.
TEST(CommitRing, BytesWhoseWriteBackFailedAreNotRecorded) {
  RingWorld world;
  ASSERT_TRUE(world.write_now(0, letters('a')).ok());
  ASSERT_TRUE(world.flush_now().ok());
  ASSERT_TRUE(world.write_now(0, letters('b')).ok());
  world.store->write_back = IoStatus::error(EIO);
  EXPECT_EQ(world.asked([&] { EXPECT_EQ(world.flush_now().error_number(), EIO); }), "");
  EXPECT_EQ(world.device->failure(), EIO);
}

// Room for the ring is made after the flush that closing begins with.
TEST(CommitRing, ClosingWaitsForWhatMakesRoom) {
  World world(test::seed(), 100);
  world.with_ring = true;
  world.open_layer();
  ASSERT_TRUE(world.write_now(0, letters('a')).ok());
  unsigned records = 0;
  unsigned records_before_room = 0;
  world.store->observe = [&](const sim::SimStore::Call& call) {
    const auto& records_at = world.superblock.record_offset;
    if (call.kind == sim::StoreCall::write &&
        std::ranges::find(records_at, call.range.offset) != records_at.end())
      ++records;
    const bool ring = call.range.offset == world.superblock.ring_offset;
    if (call.kind == sim::StoreCall::write && ring) records_before_room = records;
  };
  ASSERT_TRUE(world.device->close(world.queue).ok());
  EXPECT_EQ(records_before_room, 1U) << "of the flush, not of the closing";
  EXPECT_EQ(records, 2U);
  const std::uint64_t calls = world.store->calls();
  while (world.queue.step()) {
  }
  EXPECT_EQ(world.store->calls(), calls) << "something went on behind a closed layer";
}

TEST(CommitRing, ABarrierThatFailsWhileClosingIsTold) {
  World world(test::seed(), 100);
  world.with_ring = true;
  world.open_layer();
  ASSERT_TRUE(world.write_now(0, letters('a')).ok());
  std::uint64_t room = 0;
  world.store->fault = [&room, &world](const sim::SimStore::Call& call) {
    const std::uint64_t ring = world.superblock.ring_offset;
    if (call.kind == sim::StoreCall::write && call.range.offset == ring) room = call.number;
    return call.kind == sim::StoreCall::sync && room != 0 ? EIO : 0;
  };
  EXPECT_EQ(world.device->close(world.queue).error_number(), EIO);
  EXPECT_NE(room, 0U);
}

}  // namespace
}  // namespace oxbow::crash
