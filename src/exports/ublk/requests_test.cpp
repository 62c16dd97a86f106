// SPDX-License-Identifier: Apache-2.0
#include "exports/ublk/requests.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <vector>

#include "device/latency.h"
#include "exports/nbd/test_device.h"
#include "exports/ublk/parameters.h"
#include "os/queue.h"

namespace oxbow::ublk {
namespace {

constexpr unsigned k_depth = 64;
constexpr std::size_t k_most = std::size_t{1} << 20U;

// The driver's half of a queue. Thread safety: one thread.
class FakeChannel final : public Channel {
 public:
  [[nodiscard]] RequestDescriptor descriptor(unsigned tag) const noexcept override { return asked.at(tag); }
  [[nodiscard]] std::span<std::byte> memory(unsigned tag) noexcept override {
    if (!shares_memory) return {};
    auto& place = data[tag];
    place.resize(k_most);
    return place;
  }
  [[nodiscard]] bool receive(unsigned tag, std::span<std::byte> to) noexcept override {
    if (breaks) return false;
    std::ranges::copy_n(data[tag].begin(), static_cast<std::ptrdiff_t>(to.size()), to.begin());
    return true;
  }
  [[nodiscard]] bool send(unsigned tag, std::span<const iovec> pieces) noexcept override {
    if (breaks) return false;
    auto& place = data[tag];
    place.clear();
    for (const iovec& piece : pieces) {
      const auto* const from = static_cast<const std::byte*>(piece.iov_base);
      place.insert(place.end(), from, from + piece.iov_len);
    }
    return true;
  }
  void answer(unsigned tag, int result) noexcept override {
    EXPECT_FALSE(answers.contains(tag));
    answers[tag] = result;
  }

  bool shares_memory = false;
  bool breaks = false;
  std::map<unsigned, RequestDescriptor> asked;
  std::map<unsigned, std::vector<std::byte>> data;
  std::map<unsigned, int> answers;
};

struct Disk {
  explicit Disk(bool memory = false, bool read_only = false, bool shares_memory = false)
      : device(std::size_t{32} << 20U, memory),
        requests(device.device, queue, channel,
                 {.depth = k_depth, .most_bytes = k_most, .read_only = read_only}) {
    channel.shares_memory = shares_memory;
    requests.keep_buffers();
  }
  ~Disk() { finish(); }
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;
  Disk(Disk&&) = delete;
  Disk& operator=(Disk&&) = delete;

  void begin(unsigned tag, std::uint32_t operation, std::uint64_t sector, std::uint32_t sectors) {
    channel.answers.erase(tag);
    channel.asked[tag] = {.operation_and_flags = operation, .sectors = sectors, .first_sector = sector};
    requests.begin(tag);
  }
  void finish() {
    device.store->release();
    while (requests.open() > 0) {
      if (!queue.poll()) queue.wait();
    }
  }
  int run(std::uint32_t operation, std::uint64_t sector, std::uint32_t sectors) {
    begin(0, operation, sector, sectors);
    finish();
    return channel.answers.at(0);
  }

  nbd::TestDevice device;
  Queue queue;
  FakeChannel channel;
  Requests requests;
};

std::vector<std::byte> bytes(std::size_t count, int value) { return std::vector(count, std::byte(value)); }

TEST(UblkRequests, AreUnderstood) {
  const auto read = understand({.operation_and_flags = k_read, .sectors = 3, .first_sector = 5});
  ASSERT_TRUE(read);
  EXPECT_EQ(read->operation, Operation::read);
  EXPECT_EQ(read->range, (Range{2560, 1536}));
  const auto write = understand({.operation_and_flags = k_write | k_fua_flag, .sectors = 1});
  ASSERT_TRUE(write);
  EXPECT_EQ(write->operation, Operation::write);
  EXPECT_EQ(write->durability, Durability::when_completed);
  const auto zero = understand({.operation_and_flags = k_write_zeros | k_no_unmap_flag, .sectors = 1});
  ASSERT_TRUE(zero);
  EXPECT_EQ(zero->operation, Operation::zero);
  EXPECT_TRUE(zero->allocate);
  EXPECT_EQ(zero->durability, Durability::with_flush);
  const auto hole = understand({.operation_and_flags = k_write_zeros, .sectors = 1});
  ASSERT_TRUE(hole);
  EXPECT_FALSE(hole->allocate);
  EXPECT_EQ(understand({.operation_and_flags = k_discard_range, .sectors = 1})->operation,
            Operation::discard);
}

// A flush names no place: the kernel has all ones there.
TEST(UblkRequests, AFlushHasNoPlace) {
  const auto flush = understand({.operation_and_flags = k_flush, .first_sector = ~std::uint64_t{0}});
  ASSERT_TRUE(flush);
  EXPECT_EQ(flush->operation, Operation::flush);
  EXPECT_EQ(Disk().run(k_flush, ~std::uint64_t{0}, 0), 0);
}

TEST(UblkRequests, WhatNobodyKnowsIsRefused) {
  EXPECT_FALSE(understand({.operation_and_flags = 4, .sectors = 1}));
  EXPECT_FALSE(
      understand({.operation_and_flags = k_read, .sectors = 1, .first_sector = ~std::uint64_t{0} / 512}));
  EXPECT_EQ(Disk().run(9, 0, 1), -EOPNOTSUPP);
}

// Over a slow medium, over memory that takes and shows the data itself, and with memory that the driver copies to.
TEST(UblkRequests, WhatIsWrittenIsRead) {
  for (const auto& [memory, shared] : {std::pair{false, false}, {true, false}, {false, true}}) {
    Disk disk(memory, false, shared);
    disk.channel.data[0] = bytes(k_most, 7);
    EXPECT_EQ(disk.run(k_write, 8, 2048), static_cast<int>(k_most));
    disk.channel.data[0] = bytes(k_most, 0);
    EXPECT_EQ(disk.run(k_read, 8, 2048), static_cast<int>(k_most));
    EXPECT_EQ(disk.channel.data[0], bytes(k_most, 7));
    EXPECT_EQ(disk.run(k_write_zeros, 8, 16), 0);
    disk.channel.data[0].clear();
    EXPECT_EQ(disk.run(k_read, 0, 32), 16384);
    disk.channel.data[0].resize(16384);
    auto expected = bytes(4096 + 8192, 0);
    expected.resize(16384, std::byte{7});
    EXPECT_EQ(disk.channel.data[0], expected) << memory << shared;
  }
}

TEST(UblkRequests, FuaIsDurableWhenItIsAnswered) {
  for (const bool memory : {false, true}) {
    Disk disk(memory);
    disk.channel.data[0] = bytes(4096, 1);
    EXPECT_EQ(disk.run(k_write | k_fua_flag, 0, 8), 4096);
    EXPECT_EQ(disk.device.store->durable_writes(), 1U);
  }
}

TEST(UblkRequests, ErrorsAreThoseOfBlockDevices) {
  Disk disk;
  disk.channel.data[0] = bytes(4096, 1);
  disk.device.store->fail_with(ENOSPC);
  EXPECT_EQ(disk.run(k_write, 0, 8), -ENOSPC);
  disk.device.store->fail_with(EDQUOT);
  EXPECT_EQ(disk.run(k_write, 0, 8), -ENOSPC);
  disk.device.store->fail_with(EAGAIN);
  EXPECT_EQ(disk.run(k_read, 0, 8), -EIO);
  disk.device.store->fail_with(0);
  EXPECT_EQ(disk.run(k_read, disk.device.device.size() / 512, 1), -EIO);
  EXPECT_EQ(disk.run(k_write, disk.device.device.size() / 512, 1), -ENOSPC);
  EXPECT_EQ(disk.run(k_read, 0, k_most / 512 + 1), -EIO);
  disk.channel.breaks = true;
  EXPECT_EQ(disk.run(k_write, 0, 8), -EIO);
  EXPECT_EQ(disk.run(k_read, 0, 8), -EIO);
}

TEST(UblkRequests, AFlushThatFailsSaysSoEverAfter) {
  Disk disk;
  disk.channel.data[0] = bytes(4096, 1);
  EXPECT_EQ(disk.run(k_write, 0, 8), 4096);
  disk.device.store->fail_with(EOPNOTSUPP);
  EXPECT_EQ(disk.run(k_flush, 0, 0), -EIO);
  disk.device.store->fail_with(0);
  EXPECT_EQ(disk.run(k_write, 0, 8), -EIO);
  EXPECT_EQ(disk.run(k_write_zeros, 0, 8), -EIO);
}

TEST(UblkRequests, AReadOnlyExportChangesNothing) {
  Disk disk(false, true);
  for (const std::uint32_t operation : {k_write, k_write_zeros, k_discard_range})
    EXPECT_EQ(disk.run(operation, 0, 8), -EIO);
  EXPECT_EQ(disk.run(k_read, 0, 8), 4096);
  EXPECT_EQ(disk.run(k_flush, 0, 0), 0);
  EXPECT_TRUE(disk.device.store->writes().empty());
}

// More than may be on loan at a time: the rest waits, in order, and all of it is done.
TEST(UblkRequests, WaitForBuffers) {
  Disk disk;
  disk.device.store->hold();
  constexpr unsigned k_count = 30;
  for (unsigned tag = 0; tag < k_count; ++tag) {
    disk.channel.data[tag] = bytes(k_most, static_cast<int>(tag) + 1);
    disk.begin(tag, k_write, std::uint64_t{tag} * 2048, 2048);
  }
  EXPECT_EQ(disk.requests.open(), k_count);
  EXPECT_LE(disk.queue.buffers().lent_bytes(), std::size_t{17} << 20U);
  EXPECT_TRUE(disk.channel.answers.empty());
  disk.finish();
  for (unsigned tag = 0; tag < k_count; ++tag) {
    EXPECT_EQ(disk.channel.answers.at(tag), static_cast<int>(k_most));
    const auto contents = disk.device.store->contents();
    EXPECT_EQ(contents[std::size_t{tag} * k_most], std::byte(tag + 1));
  }
  EXPECT_EQ(disk.queue.buffers().lent_bytes(), 0U);
}

TEST(UblkParameters, AreThoseOfTheDevice) {
  const DeviceInfo info{.most_bytes = 512U << 10U};
  const Parameters all = parameters_for(10'000'000, 65536, false, info);
  EXPECT_EQ(all.kinds, k_basic | k_discard);
  EXPECT_EQ(all.attributes, k_volatile_cache | k_fua);
  EXPECT_EQ(all.logical_block, 9);
  EXPECT_EQ(all.physical_block, 12);
  EXPECT_EQ(all.most_sectors, 1024U);
  EXPECT_EQ(all.sectors, 19531U);  // 128 bytes are out of reach
  EXPECT_EQ(all.discard_granularity, 65536U);
  EXPECT_EQ(all.most_discard_ranges, 1U);
  EXPECT_GT(all.most_discard_sectors, 0U);
  EXPECT_GT(all.most_zero_sectors, 0U);
  const Parameters fixed = parameters_for(10'000'000, 65536, true, info);
  EXPECT_EQ(fixed.kinds, k_basic);
  EXPECT_EQ(fixed.attributes, k_volatile_cache | k_fua | k_read_only);
}

}  // namespace
}  // namespace oxbow::ublk
