// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstring>
#include <set>
#include <string>

#include "sim/sim_store.h"

namespace oxbow::sim {
namespace {

constexpr std::uint64_t k_disk_bytes = 64 * 1024;

// Finds the newest or the durable version everywhere.
class Extreme final : public PowerLoss {
 public:
  explicit Extreme(bool newest) noexcept : newest_(newest) {}
  [[nodiscard]] std::size_t survivor(std::uint64_t /*sector*/,
                                     std::span<const OperationId> operations) override {
    return newest_ ? operations.size() : 0;
  }

 private:
  bool newest_;
};

class AnyLoss final : public PowerLoss {
 public:
  explicit AnyLoss(Chooser& chooser) noexcept : chooser_(chooser) {}
  [[nodiscard]] std::size_t survivor(std::uint64_t /*sector*/,
                                     std::span<const OperationId> operations) override {
    return chooser_.below(operations.size() + 1);
  }

 private:
  Chooser& chooser_;
};

std::vector<std::byte> filled(std::size_t length, int value) {
  return std::vector<std::byte>(length, static_cast<std::byte>(value));
}

// One letter per sector of the first `sectors` ones: all its bytes are alike, or it shows '?'.
std::string letters(const SimDisk& disk, std::size_t sectors) {
  std::string text;
  for (std::size_t i = 0; i < sectors; ++i) {
    std::array<std::byte, k_sector_bytes> bytes{};
    disk.read({i * k_sector_bytes, k_sector_bytes}, bytes);
    const bool alike = std::ranges::all_of(bytes, [&](std::byte each) { return each == bytes[0]; });
    const char letter = static_cast<char>(bytes[0]);
    text += !alike ? '?' : letter == 0 ? '.' : letter;
  }
  return text;
}

struct CountedIo : Io {
  explicit CountedIo(Queue& owner)
      : Io(owner, [](Io& self) noexcept { ++static_cast<CountedIo&>(self).completions; }) {}
  int completions = 0;
};

class SimStoreTest : public testing::Test {
 protected:
  SimStore& make(unsigned pending_percent, std::uint64_t seed = 1) {
    random_ = std::make_unique<Random>(seed);
    queue_ = std::make_unique<SimQueue>(*random_, trace_);
    disk_ = std::make_shared<SimDisk>(pool_, k_disk_bytes);
    SimStore::Options options;
    options.pending_percent = pending_percent;
    store_ = std::make_unique<SimStore>(*queue_, disk_, options);
    return *store_;
  }
  Progress write(Io& io, std::uint64_t at, std::span<const std::byte> data,
                 WriteMode mode = WriteMode::cached) {
    io.iov.clear();
    io.iov.push_back({const_cast<std::byte*>(data.data()), data.size()});
    return store_->write(io, at, mode);
  }
  IoStatus write_now(std::uint64_t sector, std::size_t sectors, char letter,
                     WriteMode mode = WriteMode::cached) {
    const auto data = filled(sectors * k_sector_bytes, letter);
    return run_blocking(*queue_, [&](Io& io) { return write(io, sector * k_sector_bytes, data, mode); });
  }
  IoStatus sync_now() {
    return run_blocking(*queue_, [&](Io& io) { return store_->sync(io); });
  }
  std::string after_loss(bool newest, std::size_t sectors) {
    SimDisk copy = *disk_;
    Extreme loss(newest);
    copy.lose_power(loss);
    return letters(copy, sectors);
  }

  SectorPool pool_;
  Trace trace_;
  std::unique_ptr<Random> random_;
  std::unique_ptr<SimQueue> queue_;
  std::shared_ptr<SimDisk> disk_;
  std::unique_ptr<SimStore> store_;
};

TEST_F(SimStoreTest, ShowsAtOnceWhatWasWrittenAndKeepsWhatABarrierCovers) {
  make(50);
  ASSERT_TRUE(write_now(0, 2, 'a').ok());
  ASSERT_TRUE(sync_now().ok());
  ASSERT_TRUE(write_now(1, 2, 'b').ok());
  EXPECT_EQ(letters(*disk_, 4), "abb.");
  EXPECT_EQ(after_loss(true, 4), "abb.");
  EXPECT_EQ(after_loss(false, 4), "aa..");
}

TEST_F(SimStoreTest, FindsEveryMixtureBySectorAndNothingElse) {
  make(0);
  ASSERT_TRUE(write_now(0, 3, 'a').ok());
  ASSERT_TRUE(sync_now().ok());
  ASSERT_TRUE(write_now(0, 2, 'b').ok());
  ASSERT_TRUE(write_now(1, 2, 'c').ok());
  std::set<std::string> found;
  Exhaustive all;
  while (all.next()) {
    SimDisk copy = *disk_;
    AnyLoss loss(all);
    copy.lose_power(loss);
    EXPECT_TRUE(found.insert(letters(copy, 3)).second);
  }
  EXPECT_EQ(found, (std::set<std::string>{"aaa", "aac", "aba", "abc", "aca", "acc", "baa", "bac", "bba",
                                          "bbc", "bca", "bcc"}));
}

TEST_F(SimStoreTest, ABarrierCoversOnlyWhatCompletedBeforeItWasSubmitted) {
  make(100);
  CountedIo early(*queue_);
  CountedIo late(*queue_);
  CountedIo barrier(*queue_);
  ASSERT_TRUE(write_now(0, 1, 'a').ok());
  const auto data = filled(k_sector_bytes, 'b');
  ASSERT_TRUE(write(late, k_sector_bytes, data).is_pending());
  ASSERT_TRUE(store_->sync(barrier).is_pending());
  ASSERT_TRUE(write(early, 2 * k_sector_bytes, data).is_pending());
  queue_->drain();
  EXPECT_EQ(early.completions + late.completions + barrier.completions, 3);
  EXPECT_EQ(after_loss(false, 4), "a...");
  EXPECT_EQ(after_loss(true, 4), "abb.");
}

TEST_F(SimStoreTest, ADurableWriteKeepsItsOwnBytesOnly) {
  make(0);
  ASSERT_TRUE(write_now(0, 3, 'a').ok());
  ASSERT_TRUE(write_now(1, 1, 'b', WriteMode::durable).ok());
  EXPECT_EQ(after_loss(false, 4), ".b..");
  ASSERT_TRUE(write_now(1, 1, 'c').ok());
  EXPECT_EQ(after_loss(false, 4), ".b..");
  EXPECT_EQ(after_loss(true, 4), "aca.");
}

TEST_F(SimStoreTest, ZerosAndPunchesAreEffectsLikeOthers) {
  make(50);
  ASSERT_TRUE(write_now(0, 16, 'a').ok());
  ASSERT_TRUE(sync_now().ok());
  ASSERT_TRUE(
      run_blocking(*queue_, [&](Io& io) { return store_->discard(io, {0, 8 * k_sector_bytes}); }).ok());
  EXPECT_FALSE(disk_->has_room(0));
  EXPECT_TRUE(disk_->has_room(4096));
  EXPECT_EQ(letters(*disk_, 10), "........aa");
  EXPECT_EQ(after_loss(false, 10), "aaaaaaaaaa");
  const Range part{8 * k_sector_bytes + 100, 100};
  ASSERT_TRUE(
      run_blocking(*queue_, [&](Io& io) { return store_->zero(io, part, ZeroMode::may_punch); }).ok());
  EXPECT_EQ(letters(*disk_, 10), "........?a");
  Extents extents;
  EXPECT_EQ(store_->extents({0, k_disk_bytes}, extents), k_disk_bytes);
  ASSERT_EQ(extents.size(), 3U);
  EXPECT_EQ(extents[0].kind, Kind::zero);
  EXPECT_EQ(extents[1].kind, Kind::data);
  EXPECT_EQ(extents[1].length, 4096U);
}

TEST_F(SimStoreTest, GrowthIsLostUnlessABarrierCoversIt) {
  make(50);
  const auto grow = [&](std::uint64_t size) {
    return run_blocking(*queue_, [&](Io& io) { return store_->grow(io, size); });
  };
  ASSERT_TRUE(grow(2 * k_disk_bytes).ok());
  SimDisk copy = *disk_;
  Extreme loss(false);
  copy.lose_power(loss);
  EXPECT_EQ(copy.size(), k_disk_bytes);
  ASSERT_TRUE(sync_now().ok());
  copy = *disk_;
  copy.lose_power(loss);
  EXPECT_EQ(copy.size(), 2 * k_disk_bytes);
}

TEST_F(SimStoreTest, AFailedBarrierPromisesNothingEvenToTheNextOne) {
  std::set<std::string> found;
  for (std::uint64_t seed = 0; seed < 64; ++seed) {
    make(50, seed);
    ASSERT_TRUE(write_now(0, 3, 'a').ok());
    bool fail = true;
    store_->fault = [&](const SimStore::Call& call) {
      return call.kind == StoreCall::sync && fail ? EIO : 0;
    };
    EXPECT_EQ(sync_now(), IoStatus::error(EIO));
    fail = false;
    EXPECT_TRUE(sync_now().ok());
    found.insert(after_loss(false, 3));
    EXPECT_EQ(after_loss(true, 3), "aaa");
  }
  EXPECT_EQ(found.size(), 8U);
}

TEST_F(SimStoreTest, AFailedWriteLeavesAMixtureBySector) {
  std::set<std::string> found;
  for (std::uint64_t seed = 0; seed < 64; ++seed) {
    make(50, seed);
    ASSERT_TRUE(write_now(0, 2, 'a').ok());
    store_->fault = [](const SimStore::Call& call) { return call.kind == StoreCall::write ? ENOSPC : 0; };
    EXPECT_EQ(write_now(0, 2, 'b'), IoStatus::error(ENOSPC));
    ASSERT_TRUE(sync_now().ok());
    found.insert(letters(*disk_, 2));
    EXPECT_EQ(after_loss(false, 2), "aa");
  }
  EXPECT_EQ(found, (std::set<std::string>{"aa", "ab", "ba", "bb"}));
}

TEST_F(SimStoreTest, AFullDiskTakesWritesOnlyWhereThereIsRoom) {
  make(50);
  ASSERT_TRUE(run_blocking(*queue_, [&](Io& io) { return store_->allocate(io, {4096, 4096}); }).ok());
  store_->set_full(true);
  EXPECT_TRUE(write_now(8, 8, 'a').ok());
  EXPECT_EQ(write_now(16, 1, 'a'), IoStatus::error(ENOSPC));
  EXPECT_TRUE(sync_now().ok());
}

TEST_F(SimStoreTest, RoomThatNoBarrierCoversIsLost) {
  make(0);
  const auto allocate = [&](Range range) {
    return run_blocking(*queue_, [&](Io& io) { return store_->allocate(io, range); });
  };
  ASSERT_TRUE(allocate({0, 4096}).ok());
  ASSERT_TRUE(sync_now().ok());
  ASSERT_TRUE(allocate({4096, 4096}).ok());
  SimDisk copy = *disk_;
  Extreme loss(true);
  copy.lose_power(loss);
  EXPECT_TRUE(copy.has_room(0));
  EXPECT_FALSE(copy.has_room(4096));
}

TEST_F(SimStoreTest, AKilledStoreEndsEverythingWithoutAnyEffect) {
  make(100);
  CountedIo io(*queue_);
  const auto data = filled(4096, 'a');
  ASSERT_TRUE(write(io, 0, data).is_pending());
  store_->kill();
  queue_->drain();
  EXPECT_EQ(io.completions, 1);
  EXPECT_EQ(io.status, IoStatus::error(EIO));
  EXPECT_EQ(write_now(0, 1, 'a'), IoStatus::error(EIO));
  EXPECT_EQ(letters(*disk_, 8), "........");
}

TEST_F(SimStoreTest, ABarrierAfterAKillCoversWhatWasInFlight) {
  make(100);
  CountedIo io(*queue_);
  const auto data = filled(k_sector_bytes, 'a');
  ASSERT_TRUE(write(io, 0, data).is_pending());
  ASSERT_TRUE(queue_->step());
  ASSERT_EQ(letters(*disk_, 1), "a");
  store_->kill();
  disk_->forget_submitter();
  queue_->drain();
  EXPECT_EQ(after_loss(false, 1), ".");
  disk_->complete_barrier(disk_->submit_barrier());
  EXPECT_EQ(after_loss(false, 1), "a");
}

TEST_F(SimStoreTest, APendingWriteIsSeenInParts) {
  std::set<std::string> seen;
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    make(100, seed);
    CountedIo io(*queue_);
    const auto data = filled(3 * k_sector_bytes, 'a');
    ASSERT_TRUE(write(io, 0, data).is_pending());
    while (io.completions == 0) {
      seen.insert(letters(*disk_, 3));
      ASSERT_TRUE(queue_->step());
    }
    seen.insert(letters(*disk_, 3));
  }
  EXPECT_EQ(seen, (std::set<std::string>{"...", "a..", ".a.", "..a", "aa.", "a.a", ".aa", "aaa"}));
}

TEST_F(SimStoreTest, BitRotAndMisdirectedWritesAreOnTheDisk) {
  make(0);
  ASSERT_TRUE(write_now(0, 1, 'a').ok());
  ASSERT_TRUE(sync_now().ok());
  disk_->misdirect(0, 1024, 512);
  disk_->flip_bit(3, 0);
  EXPECT_EQ(after_loss(false, 3), "?.a");
}

TEST_F(SimStoreTest, RandomLossesFindWholeOperationsAndTornOnes) {
  std::set<std::string> found;
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    make(0, seed);
    ASSERT_TRUE(write_now(0, 2, 'a').ok());
    ASSERT_TRUE(write_now(1, 2, 'b').ok());
    RandomLoss loss(*random_, *disk_);
    SimDisk copy = *disk_;
    copy.lose_power(loss);
    found.insert(letters(copy, 3));
  }
  EXPECT_EQ(found, (std::set<std::string>{"...", "..b", ".a.", ".ab", ".b.", ".bb", "a..", "a.b", "aa.",
                                          "aab", "ab.", "abb"}));
}

// A run of mixed calls with overlaps, failures and barriers; returns the hash of all that happened.
std::uint64_t hash_of_run(std::uint64_t seed) {
  Random random(seed);
  Trace trace;
  SimQueue queue(random, trace);
  SectorPool pool;
  auto disk = std::make_shared<SimDisk>(pool, k_disk_bytes);
  SimStore store(queue, disk, {});
  store.fault = [&](const SimStore::Call&) { return random.chance(5) ? EIO : 0; };
  std::vector<std::unique_ptr<CountedIo>> ios;
  const auto data = filled(8192, 'x');
  for (int i = 0; i < 200; ++i) {
    ios.push_back(std::make_unique<CountedIo>(queue));
    CountedIo& io = *ios.back();
    const std::uint64_t at = random.below(k_disk_bytes - 8192);
    io.iov.push_back({const_cast<std::byte*>(data.data()), random.between(1, 8192)});
    const Progress progress = random.chance(80)   ? store.write(io, at, WriteMode::cached)
                              : random.chance(50) ? store.sync(io)
                                                  : store.zero(io, {at, 4096}, ZeroMode::may_punch);
    if (progress.is_done()) ++io.completions;
    if (random.chance(50)) (void)queue.step();
  }
  queue.drain();
  for (const auto& io : ios) EXPECT_EQ(io->completions, 1);
  RandomLoss loss(random, *disk);
  disk->lose_power(loss);
  std::vector<std::byte> bytes(k_disk_bytes);
  disk->read({0, k_disk_bytes}, bytes);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (bytes[i] != std::byte{0}) trace.note("byte", "", i);
  }
  return trace.hash();
}

TEST(SimRun, ASeedGivesTheSameRunBitForBit) {
  std::set<std::uint64_t> hashes;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const std::uint64_t hash = hash_of_run(seed);
    EXPECT_EQ(hash, hash_of_run(seed)) << "seed " << seed;
    hashes.insert(hash);
  }
  EXPECT_EQ(hashes.size(), 20U);
}

TEST(Exhaustive, RunsThroughAllDecisionsOnce) {
  std::set<std::string> seen;
  Exhaustive all;
  while (all.next()) {
    std::string run = std::to_string(all.below(3));
    if (run == "1") run += all.chance(50) ? "y" : "n";
    run += std::to_string(all.below(1));
    EXPECT_TRUE(seen.insert(run).second);
  }
  EXPECT_EQ(seen, (std::set<std::string>{"00", "1n0", "1y0", "20"}));
}

TEST(SimQueueDeathTest, SaysWhenAllWaitAndNothingCanHappen) {
  EXPECT_EXIT(
      {
        Random random(1);
        Trace trace;
        SimQueue queue(random, trace);
        queue.on_stuck = [] { std::_Exit(42); };
        queue.wait();
      },
      testing::ExitedWithCode(42), "");
}

}  // namespace
}  // namespace oxbow::sim
