// SPDX-License-Identifier: Apache-2.0
// A full disk: who waits, who doesn't, and how it ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "device/device.h"
#include "device/statistics.h"
#include "os/log.h"
#include "os/queue.h"
#include "os/test_request.h"
#include "stores/ram/ram_store.h"
#include "targets/linear/linear_target.h"

namespace oxbow {
namespace {

using testing::ElementsAre;
using testing::MatchesRegex;

constexpr std::uint64_t k_size_bytes = std::uint64_t{1} << 30;
constexpr std::uint64_t k_page_bytes = 4096;
constexpr auto k_paused_line =
    "device d: paused for lack of room (No space left on device): changes that need room wait for it, and "
    "flushes with them; reads go on";

// Keeps the lines. Thread safety: any thread.
class LinesLog final : public Log {
 public:
  void write(LogLevel level, std::string_view topic, std::string_view line) noexcept override {
    const std::lock_guard lock(mutex_);
    EXPECT_EQ(level, LogLevel::warning);
    EXPECT_EQ(topic, "device.room");
    lines_.emplace_back(line);
  }
  [[nodiscard]] std::vector<std::string> lines() const {
    const std::lock_guard lock(mutex_);
    return lines_;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;
};

// Fails what it is told to; else a RAM disk. Thread safety: none.
class FailingStore final : public Store {
 public:
  explicit FailingStore(std::shared_ptr<RamStore> store) : store_(std::move(store)) {}
  Progress read(Io& io, std::uint64_t at, std::span<std::byte> out, ReadMode mode) noexcept override {
    return store_->read(io, at, out, mode);
  }
  Progress write(Io& io, std::uint64_t at, WriteMode mode) noexcept override {
    ++writes;
    return write_error != 0 ? Progress::failed(write_error) : store_->write(io, at, mode);
  }
  Progress zero(Io& io, Range range, ZeroMode mode) noexcept override {
    return store_->zero(io, range, mode);
  }
  Progress discard(Io& io, Range range) noexcept override { return store_->discard(io, range); }
  Progress sync(Io& io) noexcept override {
    return sync_error != 0 ? Progress::failed(sync_error) : store_->sync(io);
  }
  Progress allocate(Io& io, Range range) noexcept override { return store_->allocate(io, range); }
  Progress grow(Io& io, std::uint64_t size) noexcept override { return store_->grow(io, size); }
  std::uint64_t extents(Range range, Extents& out) noexcept override { return store_->extents(range, out); }
  std::span<const std::byte> view(Range) noexcept override { return {}; }
  std::span<std::byte> memory(Range) noexcept override { return {}; }
  [[nodiscard]] IoStatus room(Range range) noexcept override {
    return range.length > spare ? IoStatus::error(ENOSPC) : IoStatus{};
  }
  [[nodiscard]] std::uint64_t size() const noexcept override { return store_->size(); }
  [[nodiscard]] bool writable() const noexcept override { return true; }
  [[nodiscard]] std::string describe() const override { return "failing"; }

  int write_error = 0;
  int sync_error = 0;
  unsigned writes = 0;
  std::uint64_t spare = k_size_bytes;

 private:
  std::shared_ptr<RamStore> store_;
};

std::shared_ptr<RamStore> ram(std::uint64_t pages) {
  auto store = RamStore::create({.size_bytes = k_size_bytes, .budget_bytes = pages * k_page_bytes});
  EXPECT_TRUE(store);
  return *store;
}

std::shared_ptr<Target> over(std::shared_ptr<Store> store) {
  return std::make_shared<LinearTarget>(std::move(store), "ram", Range{0, k_size_bytes}, true);
}

// A RAM disk with room for two pages, whose device looks for room when it is told to.
class DeviceRoom : public ::testing::Test {
 protected:
  void open(OnFull on_full = OnFull::pause) {
    device_ = std::make_unique<Device>(
        over(store_), Device::Options{.name = "d", .on_full = on_full, .log = &log_}, queue_);
  }
  void write(Request& request, std::uint64_t page, std::uint64_t pages = 1,
             Durability durability = Durability::with_flush) {
    data_.assign(pages * k_page_bytes, std::byte{'x'});
    request.answered(device_->write(request, page * k_page_bytes, data_, durability));
  }
  [[nodiscard]] IoStatus write_now(std::uint64_t page, std::uint64_t pages = 1) {
    const std::vector<std::byte> data(pages * k_page_bytes, std::byte{'o'});
    return run_blocking(queue_, [&](Io& io) {
      return device_->write(io, page * k_page_bytes, data, Durability::with_flush);
    });
  }
  [[nodiscard]] IoStatus discard_now(std::uint64_t page, std::uint64_t pages = 1) {
    return run_blocking(queue_, [&](Io& io) {
      return device_->discard(io, {page * k_page_bytes, pages * k_page_bytes}, Durability::with_flush);
    });
  }
  [[nodiscard]] char letter(std::uint64_t page) {
    std::vector<std::byte> out(1);
    EXPECT_TRUE(
        run_blocking(queue_, [&](Io& io) { return device_->read(io, page * k_page_bytes, out); }).ok());
    return static_cast<char>(out[0]);
  }
  void look() {
    device_->look_for_room();
    while (queue_.poll()) {
    }
  }

  LinesLog log_;
  Queue queue_;
  std::vector<std::byte> data_;
  std::shared_ptr<RamStore> ram_ = ram(2);
  std::shared_ptr<FailingStore> store_ = std::make_shared<FailingStore>(ram_);
  std::unique_ptr<Device> device_;
};

TEST_F(DeviceRoom, AWriteWaitsUntilThereIsRoomAndFlushesWithIt) {
  open();
  ASSERT_TRUE(write_now(0, 2).ok());
  EXPECT_FALSE(device_->room());
  Request waits(queue_);
  write(waits, 10);
  Request flush(queue_);
  flush.answered(device_->flush(flush));
  Request durable(queue_);
  const std::vector<std::byte> over_old(k_page_bytes, std::byte{'y'});
  durable.answered(device_->write(durable, k_page_bytes, over_old, Durability::when_completed));
  for (int i = 0; i < 5; ++i) look();
  EXPECT_FALSE(waits.ended || flush.ended || durable.ended);
  const auto room = device_->room();
  ASSERT_TRUE(room);
  EXPECT_EQ(room->reason, ENOSPC);
  EXPECT_EQ(room->changes, 1U);
  EXPECT_EQ(room->flushes, 2U);
  EXPECT_EQ(letter(0), 'o') << "reads go on";
  EXPECT_TRUE(write_now(1).ok()) << "and changes that need no room";
  EXPECT_TRUE(discard_now(0).ok());
  EXPECT_FALSE(waits.ended);
  look();
  EXPECT_TRUE(waits.ended && waits.result.ok());
  EXPECT_TRUE(flush.ended && flush.result.ok());
  EXPECT_TRUE(durable.ended && durable.result.ok());
  EXPECT_EQ(letter(10), 'x');
  EXPECT_EQ(letter(1), 'y');
  EXPECT_FALSE(device_->room());
  EXPECT_THAT(
      log_.lines(),
      ElementsAre(k_paused_line,
                  MatchesRegex("device d: there is room again, and what waited goes on after [0-9.]+ s")));
  EXPECT_EQ(device_->statistics()[Counter::errors], 0U);
}

TEST_F(DeviceRoom, OneTriesUntilThereIsRoomThenMoreAndMore) {
  open();
  ASSERT_TRUE(write_now(0, 2).ok());
  std::vector<std::unique_ptr<Request>> waiting;
  for (int i = 0; i < 20; ++i) {
    waiting.push_back(std::make_unique<Request>(queue_));
    write(*waiting.back(), 100 + static_cast<std::uint64_t>(i));
  }
  const unsigned before = store_->writes;
  look();
  EXPECT_EQ(store_->writes, before + 1);
  look();
  EXPECT_EQ(store_->writes, before + 2);
  ASSERT_TRUE(discard_now(0, 2).ok());
  look();
  EXPECT_LE(store_->writes, before + 2 + 2 + 4) << "two get room, and each lets two others try";
  EXPECT_EQ(device_->room()->changes, 18U);
  EXPECT_EQ(std::ranges::count_if(waiting, [](const auto& each) { return each->ended; }), 2);
  device_->give_up_waiting();
  while (queue_.poll()) {
  }
  EXPECT_EQ(std::ranges::count_if(waiting,
                                  [](const auto& each) { return each->result == IoStatus::error(ENOSPC); }),
            18);
  EXPECT_THAT(log_.lines(),
              ElementsAre(k_paused_line, MatchesRegex("device d: there is room again, and what waited "
                                                      "goes on after [0-9.]+ s; 18 that had waited for "
                                                      "it failed")));
}

TEST_F(DeviceRoom, WhatWaitsIsGivenUpWhenServingStops) {
  open();
  ASSERT_TRUE(write_now(0, 2).ok());
  Request waits(queue_);
  write(waits, 10);
  Request flush(queue_);
  flush.answered(device_->flush(flush));
  device_->give_up_waiting();
  while (queue_.poll()) {
  }
  EXPECT_EQ(waits.result, IoStatus::error(ENOSPC));
  EXPECT_TRUE(flush.ended && flush.result.ok()) << "what completed becomes durable";
  EXPECT_EQ(write_now(10), IoStatus::error(ENOSPC)) << "from now on";
  EXPECT_TRUE(device_->close(queue_).ok());
  EXPECT_THAT(log_.lines(),
              ElementsAre(k_paused_line, MatchesRegex("device d: nobody waits for room any more after "
                                                      "[0-9.]+ s; 1 that had waited for it failed")));
}

TEST_F(DeviceRoom, AnImpatientRequestDoesNotWait) {
  open();
  ASSERT_TRUE(write_now(0, 2).ok());
  Request waits(queue_);
  Request other(queue_);
  Request flush(queue_);
  write(waits, 10);
  write(other, 11);
  flush.answered(device_->flush(flush));
  device_->hurry(waits);
  device_->hurry(flush);
  while (queue_.poll()) {
  }
  EXPECT_EQ(waits.result, IoStatus::error(ENOSPC));
  EXPECT_EQ(flush.result, IoStatus::error(ENOSPC));
  EXPECT_FALSE(other.ended);
  EXPECT_EQ(device_->room()->changes, 1U);
  EXPECT_EQ(device_->room()->flushes, 0U);
  Request late(queue_);
  late.impatient = true;
  write(late, 12);
  EXPECT_EQ(late.result, IoStatus::error(ENOSPC));
  device_->give_up_waiting();
  while (queue_.poll()) {
  }
  EXPECT_TRUE(other.ended);
}

TEST_F(DeviceRoom, WithErrorNobodyWaits) {
  open(OnFull::error);
  ASSERT_TRUE(write_now(0, 2).ok());
  EXPECT_EQ(write_now(10), IoStatus::error(ENOSPC));
  EXPECT_FALSE(device_->room());
  EXPECT_THAT(log_.lines(), ElementsAre());
}

TEST_F(DeviceRoom, OnlyWhatRoomCanCureWaits) {
  open();
  for (const int error : {EFBIG, EIO, ENOMEM}) {
    store_->write_error = error;
    EXPECT_EQ(write_now(0), IoStatus::error(error));
  }
  store_->write_error = EDQUOT;
  Request waits(queue_);
  write(waits, 0);
  EXPECT_EQ(device_->room()->reason, EDQUOT);
  store_->write_error = EIO;
  look();
  EXPECT_EQ(waits.result, IoStatus::error(EIO)) << "another error on the way is told";
  EXPECT_FALSE(device_->room());
  EXPECT_EQ(write_now(k_size_bytes / k_page_bytes), IoStatus::error(ENOSPC))
      << "beyond the end is no lack of room";
}

TEST_F(DeviceRoom, AReserveIsRoomThatIsLacking) {
  open();
  store_->spare = k_page_bytes;
  EXPECT_TRUE(write_now(0).ok());
  Request waits(queue_);
  write(waits, 2, 2);
  look();
  EXPECT_FALSE(waits.ended);
  store_->spare = 2 * k_page_bytes;
  EXPECT_TRUE(discard_now(0).ok());
  look();
  EXPECT_TRUE(waits.ended && waits.result.ok());
}

TEST_F(DeviceRoom, AFailedBarrierEndsTheWaiting) {
  open();
  ASSERT_TRUE(write_now(0, 2).ok());
  Request flush(queue_);
  store_->sync_error = EIO;
  flush.answered(device_->flush(flush));  // under way when the pause begins
  Request waits(queue_);
  write(waits, 10);
  while (queue_.poll()) {
  }
  EXPECT_EQ(flush.result, IoStatus::error(EIO));
  EXPECT_EQ(device_->failure(), EIO);
  look();
  EXPECT_EQ(waits.result, IoStatus::error(EIO));
}

TEST_F(DeviceRoom, StructureChangesDoNotWaitForWhoWaitsForRoom) {
  open();
  ASSERT_TRUE(write_now(0, 2).ok());
  Request waits(queue_);
  Request flush(queue_);
  write(waits, 10);
  flush.answered(device_->flush(flush));
  device_->suspend(queue_);
  look();  // it tries again only after the change
  EXPECT_FALSE(waits.ended);
  const std::shared_ptr<RamStore> next = ram(4);
  (void)device_->replace(over(next), false);
  device_->resume();
  while (queue_.poll()) {
  }
  EXPECT_TRUE(waits.ended && waits.result.ok());
  EXPECT_TRUE(flush.ended && flush.result.ok());
  EXPECT_EQ(letter(10), 'x');
  EXPECT_EQ(next->allocated_bytes(), k_page_bytes) << "it was written to the new target";
}

TEST_F(DeviceRoom, WhatWaitsIsRefusedByATargetThatIsReadOnlyNow) {
  open();
  ASSERT_TRUE(write_now(0, 2).ok());
  Request waits(queue_);
  write(waits, 10);
  device_->suspend(queue_);
  (void)device_->replace(over(ram(4)), true);
  device_->resume();
  while (queue_.poll()) {
  }
  EXPECT_EQ(waits.result, IoStatus::error(EPERM));
}

TEST(DeviceRoomThread, RoomIsNoticedByItself) {
  LinesLog log;
  const std::shared_ptr<RamStore> store = ram(2);
  Device device(over(store), Device::Options{.name = "d", .on_full = OnFull::pause, .log = &log});
  const auto write = [&](std::uint64_t page, std::uint64_t pages) {
    Queue queue;
    const std::vector<std::byte> data(pages * k_page_bytes, std::byte{'t'});
    return run_blocking(queue, [&](Io& io) {
      return device.write(io, page * k_page_bytes, data, Durability::when_completed);
    });
  };
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(write(0, 2).ok());
    std::vector<IoStatus> results(6, IoStatus::error(EINVAL));
    std::vector<std::thread> clients;
    std::atomic<std::size_t> ended{0};
    for (std::size_t i = 0; i < results.size(); ++i) {
      clients.emplace_back([&, i] {
        results[i] = write(10 + i, 1);
        ++ended;
      });
    }
    while (!device.room() || device.room()->changes + device.room()->flushes < 6)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    Queue queue;
    // There is never room for more than two of them, but what they wrote is discarded again. Between those that
    // go on and those that find the store full again, nobody waits for a moment.
    while (ended < results.size()) {
      EXPECT_TRUE(run_blocking(queue, [&](Io& io) {
                    return device.discard(io, {0, 100 * k_page_bytes}, Durability::with_flush);
                  }).ok());
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    for (std::thread& each : clients) each.join();
    for (const IoStatus& each : results) EXPECT_TRUE(each.ok()) << each.error_number();
    EXPECT_TRUE(run_blocking(queue, [&](Io& io) {
                  return device.discard(io, {0, 100 * k_page_bytes}, Durability::with_flush);
                }).ok());
  }
  EXPECT_GE(log.lines().size(), 4U);
}

}  // namespace
}  // namespace oxbow
