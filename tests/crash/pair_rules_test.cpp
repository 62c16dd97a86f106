// SPDX-License-Identifier: Apache-2.0
// Rules of pairs of cowloop, one at a time.
#include <gtest/gtest.h>

#include "crash/original.h"
#include "crash/world.h"
#include "stores/blocking.h"
#include "targets/cowloop/cowloop_target.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::crash {
namespace {

constexpr std::uint64_t k_block = 1024;

// A device over a pair whose read-only file is all zeros; without live state. Thread safety: none.
struct PairWorld : World {
  explicit PairWorld(std::uint64_t blocks) : World(1, 0) {
    base_disk = std::make_shared<sim::SimDisk>(pool, blocks * k_block);
    disk = std::make_shared<sim::SimDisk>(pool, 0);
    sim::SimStore made(queue, disk, options);
    const auto head = cowloop::fresh_head(cowloop::Layout::bytes_8, blocks, 0);
    EXPECT_TRUE(cowloop::write_fresh(queue, "cannot create cowfile", made, head));
    EXPECT_TRUE(sync_blocking(queue, made).ok());
    open_pair();
  }
  void open_pair() {
    device.reset();
    store = std::make_shared<sim::SimStore>(queue, disk, options);
    auto base = std::make_shared<sim::SimStore>(queue, base_disk, options);
    auto opened = CowloopTarget::open(queue, store, base, {.writable = true});
    ASSERT_TRUE(opened) << opened.error().text();
    pair = *opened;
    device = std::make_unique<Device>(std::move(*opened), Device::Options{}, queue);
  }
  void kill_pair() {
    disk->forget_submitter();
    open_pair();
  }
  void lose_all_that_may_be_lost() {
    disk = std::make_shared<sim::SimDisk>(*disk);
    Worst worst;
    disk->lose_power(worst);
    open_pair();
  }

  std::shared_ptr<CowloopTarget> pair;
};

TEST(PairRules, ADurableWriteAfterAKillDoesNotRelyOnBitsInTheCache) {
  PairWorld world(20);
  ASSERT_TRUE(world.write_now(0, letters('A', k_block)).ok());
  world.die_at_sync(2);  // of the bitmap, which is in the cache by then
  EXPECT_FALSE(world.flush_now().ok());
  world.kill_pair();
  EXPECT_EQ(world.letter(0), 'A');
  ASSERT_TRUE(world.write_now(0, letters('B', k_block), true).ok());
  world.lose_all_that_may_be_lost();
  EXPECT_EQ(world.letter(0), 'B');
}

TEST(PairRules, AFlushOfMorePagesThanARoundTakesCoversAll) {
  constexpr std::uint64_t k_pages = 1100;
  constexpr std::uint64_t k_page_span = 32768 * k_block;
  PairWorld world(k_pages * 32768);
  for (std::uint64_t page = 0; page < k_pages; ++page)
    ASSERT_TRUE(world.write_now(page * k_page_span + page * k_block, letters('A', k_block)).ok());
  ASSERT_TRUE(world.flush_now().ok());
  world.lose_all_that_may_be_lost();
  for (std::uint64_t page = 0; page < k_pages; ++page)
    ASSERT_EQ(world.letter(page * k_page_span + page * k_block), 'A') << page;
  ASSERT_TRUE(world.device->close(world.queue).ok());
  EXPECT_EQ(world.pair->used_blocks(), k_pages);
  Original original(*world.base_disk, *world.disk);
  EXPECT_EQ(original.open(Original::Mark::refused), std::nullopt);
}

// A cowfile whose bitmap is too large to be counted at opening is counted when it is left clean.
TEST(PairRules, ALargeBitmapIsCountedAtTheEnd) {
  constexpr std::uint64_t k_blocks = std::uint64_t{9} << 26;  // 72 MiB of bitmap
  PairWorld world(k_blocks);
  ASSERT_TRUE(world.write_now((k_blocks - 3) * k_block, letters('A', 3 * k_block)).ok());
  ASSERT_TRUE(world.write_now(0, letters('B', k_block)).ok());
  ASSERT_TRUE(world.flush_now().ok());
  world.lose_all_that_may_be_lost();
  EXPECT_EQ(world.pair->used_blocks(), std::nullopt);
  EXPECT_EQ(world.letter((k_blocks - 1) * k_block), 'A');
  EXPECT_EQ(world.letter((k_blocks - 4) * k_block), '.');
  ASSERT_TRUE(world.write_now(5 * k_block, letters('C', k_block)).ok());
  ASSERT_TRUE(world.device->close(world.queue).ok());
  EXPECT_EQ(world.pair->used_blocks(), 5U);
  world.open_pair();
  EXPECT_EQ(world.pair->used_blocks(), 5U);
}

}  // namespace
}  // namespace oxbow::crash
