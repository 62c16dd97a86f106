// SPDX-License-Identifier: Apache-2.0
// Single rules of the durability contract, each in a scenario as small as it can be.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "crash/live_place.h"
#include "crash/world.h"
#include "targets/cow/layer_head.h"

namespace oxbow::crash {
namespace {

using sim::SimStore;
using sim::StoreCall;

// Finds of what is not durable only the given sector.
class OnlySector final : public sim::PowerLoss {
 public:
  explicit OnlySector(std::uint64_t sector) noexcept : sector_(sector) {}
  [[nodiscard]] std::size_t survivor(std::uint64_t sector,
                                     std::span<const sim::OperationId> operations) override {
    return sector == sector_ ? operations.size() : 0;
  }

 private:
  std::uint64_t sector_;
};

// Tears the records that are not durable: of each only its first sector is found.
class TornRecords final : public sim::PowerLoss {
 public:
  explicit TornRecords(const native::Superblock& superblock) noexcept : superblock_(superblock) {}
  [[nodiscard]] std::size_t survivor(std::uint64_t sector,
                                     std::span<const sim::OperationId> operations) override {
    const bool first = std::ranges::count(superblock_.record_offset, sector * k_sector_bytes) > 0;
    return first ? operations.size() : 0;
  }

 private:
  const native::Superblock& superblock_;
};

const std::vector<std::byte> k_data(4096, std::byte{'x'});

// A barrier that fails may leave clean what it didn't write, and the next one doesn't hear of it: so nothing that
// was under way at that moment may be promised.
TEST(FailedBarrier, FailsTheFlushThatRunsBesideIt) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    World world(seed);
    world.open_plain();
    ASSERT_TRUE(world.write_now(0, k_data).ok());
    world.store->fault = [](const SimStore::Call& call) {
      return call.kind == StoreCall::durable_write ? EIO : 0;
    };
    Request flush(world.queue);
    Request durable(world.queue);
    flush.answered(world.device->flush(flush));
    world.write(durable, 8192, k_data, true);
    world.queue.drain();
    ASSERT_TRUE(flush.ended && durable.ended);
    EXPECT_FALSE(durable.result.ok());
    if (flush.result.ok()) {
      EXPECT_EQ(world.after_loss(0), std::byte{'x'}) << "seed " << seed;
    }
  }
}

TEST(FailedBarrier, FailsTheDurableWriteThatRunsBesideIt) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    World world(seed);
    world.open_plain();
    world.store->fault = [](const SimStore::Call& call) { return call.kind == StoreCall::sync ? EIO : 0; };
    Request flush(world.queue);
    Request durable(world.queue);
    flush.answered(world.device->flush(flush));
    world.write(durable, 8192, k_data, true);
    world.queue.drain();
    EXPECT_FALSE(flush.result.ok());
    if (durable.result.ok()) {
      EXPECT_EQ(world.after_loss(8192), std::byte{'x'}) << "seed " << seed;
    }
  }
}

// Records and pages have room before the first change is acknowledged: a full disk stops new data only.
TEST(FullDisk, LeavesFlushesAndACleanCloseWorking) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    World world(seed);
    world.open_layer();
    ASSERT_TRUE(world.write_now(0, k_data).ok());
    world.store->set_full(true);
    EXPECT_EQ(world.write_now(4096, k_data), IoStatus::error(ENOSPC));
    EXPECT_TRUE(world.flush_now().ok()) << "seed " << seed;
    EXPECT_TRUE(world.write_now(0, k_data).ok());
    EXPECT_TRUE(world.device->close(world.queue).ok()) << "seed " << seed;
  }
}

// After a kill the newest page may stand in the cache alone. A durable write that relies on it must not end before
// the page is on the disk: the barrier with which the session begins sees to that.
TEST(Session, BeginsWithABarrierForWhatAKilledOneLeftInTheCache) {
  World world(1);
  world.open_layer();
  ASSERT_TRUE(world.write_now(0, letters('a')).ok());
  world.die_at_sync(2);  // the page was written, and is not durable
  EXPECT_FALSE(world.flush_now().ok());
  world.kill();
  ASSERT_EQ(world.letter(0), 'a');
  ASSERT_TRUE(world.write_now(512, letters('b', 512), true).ok());
  Worst worst;
  world.power_loss(worst);
  EXPECT_EQ(world.letter(512), 'b');
}

// Cuts a clean close off between the copies of the superblock.
void close_half(World& world) {
  bool one_written = false;
  world.store->observe = [&](const SimStore::Call& call) {
    const bool superblock = call.range.offset == 0 || call.range.offset == native::k_apart_bytes;
    if (call.kind == StoreCall::sync && one_written) world.store->kill();
    one_written = one_written || (call.kind == StoreCall::write && superblock);
  };
  EXPECT_FALSE(world.device->close(world.queue).ok());
  world.disk->forget_submitter();
}

// Else rot in the newer one would bring the older one back, unnoticed.
TEST(Superblocks, AreAlikeAgainOnceTheLayerWasOpenedForWriting) {
  World world(1);
  world.open_layer();
  ASSERT_TRUE(world.write_now(0, letters('a')).ok());
  close_half(world);
  const auto sequence = [&world](std::uint64_t copy) {
    native::Superblock superblock{};
    world.disk->read({copy * native::k_apart_bytes, sizeof(superblock)},
                     std::as_writable_bytes(std::span(&superblock, 1)));
    return superblock.sequence;
  };
  ASSERT_NE(sequence(0), sequence(1));
  world.open_again();
  EXPECT_EQ(sequence(0), sequence(1));
  EXPECT_TRUE(world.disk->undurable_operations().empty());
}

// The next write of a superblock goes to the older copy: the newer one has to be on the disk by then.
TEST(Superblocks, WhatAKillLeftInTheCacheIsDurableBeforeAnythingIsWritten) {
  World world(1);
  world.open_layer();
  world.die_at_sync(1);  // the session's first copy was written, and is not durable
  EXPECT_FALSE(world.write_now(0, letters('a')).ok());
  world.disk->forget_submitter();
  ASSERT_FALSE(world.disk->undurable_operations().empty());
  world.open_again();
  EXPECT_TRUE(world.disk->undurable_operations().empty());
}

// A torn slot is excused by the newest record alone. So the first record of the next session has to name it again,
// whatever else that session changes.
class TornPage : public testing::Test {
 protected:
  static constexpr std::uint64_t k_page = native::k_clusters_per_page * 4096;
  static constexpr std::uint64_t k_far = k_page - 4096;  // its state is in the last sector of the page

  // Tears the second slot of page `pages` - 1, in a flush that writes `beside` pages after it too.
  void tear(std::uint64_t pages = 1, std::uint64_t beside = 1) {
    page_ = (pages - 1) * k_page;
    world_.open_layer((pages + beside) * k_page);
    ASSERT_TRUE(world_.write_now(page_, letters('a')).ok());
    ASSERT_TRUE(world_.write_now(page_ + k_far, letters('a')).ok());
    ASSERT_TRUE(world_.flush_now().ok());
    ASSERT_TRUE(world_.write_now(page_ + 4096, letters('b')).ok());
    ASSERT_TRUE(world_.write_now(page_ + k_far - 4096, letters('b')).ok());
    for (std::uint64_t i = 0; i < beside; ++i) {
      ASSERT_TRUE(world_.write_now((pages + i) * k_page, letters('b', 512)).ok());
    }
    world_.die_at_sync(2);
    EXPECT_FALSE(world_.flush_now().ok());
    OnlySector torn((world_.superblock.slot_offset[1] + (pages - 1) * native::k_page_bytes) / k_sector_bytes);
    world_.power_loss(torn);
  }
  void expect_old() {
    EXPECT_EQ(world_.letter(page_), 'a');
    EXPECT_EQ(world_.letter(page_ + k_far), 'a');
    EXPECT_EQ(world_.letter(page_ + 4096), '.');
    EXPECT_EQ(world_.letter(page_ + k_far - 4096), '.');
  }
  World world_{1};
  std::uint64_t page_ = 0;
};

TEST_F(TornPage, GivesWayToTheOlderSlot) {
  tear();
  expect_old();
}

TEST_F(TornPage, StaysExcusedWhenTheNextSessionWritesAnotherPage) {
  tear();
  ASSERT_TRUE(world_.write_now(k_page, letters('c')).ok());
  ASSERT_TRUE(world_.flush_now().ok());
  Worst worst;
  world_.power_loss(worst);
  expect_old();
  EXPECT_EQ(world_.letter(k_page), 'c');
}

// The next record goes to the other slot: torn itself, it leaves the one that excuses the page. (A record of few
// pages fits in its first sector; so the one that excuses names many.)
TEST_F(TornPage, StaysExcusedWhileTheNextRecordIsWritten) {
  tear(1, 300);
  ASSERT_TRUE(world_.write_now(k_page, letters('c')).ok());
  world_.die_at_sync(1);  // the record was written, and is not durable
  EXPECT_FALSE(world_.flush_now().ok());
  TornRecords torn(world_.superblock);
  world_.power_loss(torn);
  expect_old();
}

// Torn pages come before all others: the first record has to name them even when it has no room for all that is dirty.
TEST_F(TornPage, StaysExcusedWhenMorePagesAreDirtyThanARecordNames) {
  constexpr std::uint64_t k_others = native::k_pages_per_flush + 10;
  tear(k_others + 1);
  for (std::uint64_t page = 0; page < k_others; ++page) {
    ASSERT_TRUE(world_.write_now(page * k_page, letters('c', 512)).ok());
  }
  world_.die_at_sync(2);  // the first record is durable, its pages are not
  EXPECT_FALSE(world_.flush_now().ok());
  Worst worst;
  world_.power_loss(worst);
  expect_old();
}

TEST_F(TornPage, IsMendedByACloseWithoutAnyChange) {
  tear();
  ASSERT_TRUE(world_.device->close(world_.queue).ok());
  world_.open_again();
  expect_old();
}

// Opens the layer as the next process does after a kill. Nothing when it could be opened, else why not.
std::string open_live(World& world, LivePlace& place, int sync_fails = 0) {
  world.device.reset();
  world.store = std::make_shared<sim::SimStore>(world.queue, world.disk, world.options);
  CowTarget::Options how{.writable = true};
  const auto adopted = place.choose(world.queue, *world.store, true, how);
  if (!adopted) return adopted.error().text();
  world.store->fault = [sync_fails](const sim::SimStore::Call& call) {
    return call.kind == sim::StoreCall::sync ? sync_fails : 0;
  };
  auto target = CowTarget::open(world.queue, world.store, nullptr, std::move(how));
  if (!target) return target.error().text();
  world.superblock = (*target)->superblock();
  world.device = std::make_unique<Device>(std::move(*target), Device::Options{}, world.queue);
  return {};
}

// What was answered before a kill is in the cache. A barrier that fails may leave it there, taken for clean, so that no
// later one makes it durable: then the live state must not say any more that it is there.
TEST(Adoption, CountsNoMoreWhenItsBarrierFails) {
  World world(1, 20);
  world.open_layer();
  const auto place = std::make_shared<LivePlace>();
  ASSERT_EQ(open_live(world, *place), "");
  ASSERT_TRUE(world.write_now(0, letters('a')).ok());
  world.disk->forget_submitter();
  EXPECT_EQ(open_live(world, *place, EIO), "cannot open layer: disk: Input/output error");
  const auto head = read_layer_head(world.queue, *world.store);
  ASSERT_TRUE(head) << head.error().text();
  EXPECT_TRUE(place->is_dead(head->superblock));
  EXPECT_EQ(open_live(world, *place), "");
  EXPECT_EQ(world.letter(0), '.') << "what the disk says";
}

// A record has room for 1,024 pages: a flush of more takes several rounds, and completes after the last.
TEST(ManyPages, AreAllDurableAfterOneFlush) {
  constexpr std::uint64_t k_pages = native::k_pages_per_flush + 40;
  constexpr std::uint64_t k_span = native::k_clusters_per_page * 4096;
  World world(1, 20);
  world.open_layer(k_pages * k_span);
  for (std::uint64_t page = 0; page < k_pages; ++page) {
    ASSERT_TRUE(world.write_now(page * k_span, letters('a', 512)).ok());
  }
  ASSERT_TRUE(world.flush_now().ok());
  Worst worst;
  world.power_loss(worst);
  for (std::uint64_t page = 0; page < k_pages; ++page) {
    ASSERT_EQ(world.letter(page * k_span), 'a') << "page " << page;
  }
}

// The rounds after the first find the log of the commit ring empty, and have pages to write all the same.
TEST(ManyPages, AreAllDurableAfterAFlushThatIsNotTheFirst) {
  constexpr std::uint64_t k_pages = native::k_pages_per_flush + 40;
  constexpr std::uint64_t k_span = native::k_clusters_per_page * 4096;
  World world(1, 20);
  world.with_ring = true;
  world.open_layer(k_pages * k_span);
  ASSERT_TRUE(world.write_now(0, letters('a', 512)).ok());
  ASSERT_TRUE(world.flush_now().ok());
  for (std::uint64_t page = 0; page < k_pages; ++page) {
    ASSERT_TRUE(world.write_now(page * k_span, letters('b', 512)).ok());
  }
  ASSERT_TRUE(world.flush_now().ok());
  Worst worst;
  world.power_loss(worst);
  for (std::uint64_t page = 0; page < k_pages; ++page) {
    ASSERT_EQ(world.letter(page * k_span), 'b') << "page " << page;
  }
}

// Whoever goes on writing to all the pages doesn't keep a flush from its end; the next one covers what it wrote.
TEST(ManyPages, AreFlushedThoughTheyChangeAgainMeanwhile) {
  constexpr std::uint64_t k_pages = native::k_pages_per_flush + 40;
  constexpr std::uint64_t k_span = native::k_clusters_per_page * 4096;
  World world(1, 20);
  world.with_ring = true;
  world.open_layer(k_pages * k_span);
  unsigned syncs = 0;
  std::uint64_t written = 0;  // clusters of each page
  const auto write_to_all = [&] {
    for (std::uint64_t page = 0; page < k_pages; ++page) {
      ASSERT_TRUE(world.write_now(page * k_span + written * 4096, letters('a', 512)).ok());
    }
    ++written;
  };
  write_to_all();
  world.store->observe = [&syncs](const SimStore::Call& call) {
    if (call.kind == StoreCall::sync) ++syncs;
  };
  Request flush(world.queue);
  flush.answered(world.device->flush(flush));
  while (!flush.ended && written < 10 && world.queue.step()) {
    if (syncs == written) write_to_all();
  }
  EXPECT_TRUE(flush.ended);
  EXPECT_EQ(syncs, 4U) << "two rounds";
  ASSERT_TRUE(world.flush_now().ok());
  Worst worst;
  world.power_loss(worst);
  for (std::uint64_t at = 0; at < k_pages * written; ++at) {
    ASSERT_EQ(world.letter(at / written * k_span + at % written * 4096), 'a') << "write " << at;
  }
}

// Power fails between the rounds of such a flush, and the next session has its own pages to write.
TEST(ManyPages, AreOldOrNewWhenTheirFlushIsCutOff) {
  constexpr std::uint64_t k_pages = native::k_pages_per_flush + 40;
  constexpr std::uint64_t k_span = native::k_clusters_per_page * 4096;
  for (unsigned sync = 1; sync <= 4; ++sync) {
    World world(sync, 20);
    world.open_layer(k_pages * k_span);
    for (std::uint64_t page = 0; page < k_pages; ++page) {
      ASSERT_TRUE(world.write_now(page * k_span, letters('a', 512)).ok());
    }
    world.die_at_sync(sync);
    EXPECT_FALSE(world.flush_now().ok());
    sim::RandomLoss loss(world.random, *world.disk);
    world.power_loss(loss);
    ASSERT_TRUE(world.write_now(4096, letters('b')).ok());
    ASSERT_TRUE(world.flush_now().ok());
    Worst worst;
    world.power_loss(worst);
    EXPECT_EQ(world.letter(4096), 'b');
    for (std::uint64_t page = 0; page < k_pages; ++page) {
      const char found = world.letter(page * k_span);
      ASSERT_TRUE(found == 'a' || found == '.') << "page " << page << ": " << found;
    }
  }
}

}  // namespace
}  // namespace oxbow::crash
