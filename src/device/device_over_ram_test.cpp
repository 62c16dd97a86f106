// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <vector>

#include "device/device.h"
#include "device/statistics.h"
#include "os/queue.h"
#include "stores/ram/ram_store.h"
#include "targets/linear/linear_target.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_size_bytes = std::uint64_t{1} << 30;
constexpr std::uint64_t k_page_bytes = 4096;

// A RAM disk of 1 GiB with room for two pages.
class DeviceOverRam : public ::testing::Test {
 protected:
  void SetUp() override {
    auto store = RamStore::create({.size_bytes = k_size_bytes, .budget_bytes = 2 * k_page_bytes});
    ASSERT_TRUE(store) << store.error().text();
    store_ = *store;
    device_ =
        std::make_unique<Device>(std::make_shared<LinearTarget>(store_, "ram", Range{0, k_size_bytes}, true),
                                 Device::Options{.name = "ram"});
  }
  [[nodiscard]] IoStatus write(std::uint64_t at, std::uint64_t length, Durability durability) {
    const std::vector<std::byte> data(length, std::byte{9});
    return run_blocking(queue_, [&](Io& io) { return device_->write(io, at, data, durability); });
  }

  Queue queue_;
  std::shared_ptr<RamStore> store_;
  std::unique_ptr<Device> device_;
};

TEST_F(DeviceOverRam, LackOfRoomIsNoFailureOfTheDevice) {
  ASSERT_TRUE(write(0, k_page_bytes, Durability::with_flush).ok());
  for (const Durability durability : {Durability::with_flush, Durability::when_completed}) {
    EXPECT_EQ(write(1 << 20, 3 * k_page_bytes, durability), IoStatus::error(ENOSPC));
    EXPECT_TRUE(run_blocking(queue_, [&](Io& io) { return device_->flush(io); }).ok());
    EXPECT_TRUE(write(0, k_page_bytes, durability).ok());
  }
  const auto discarded = run_blocking(
      queue_, [&](Io& io) { return device_->discard(io, {0, k_page_bytes}, Durability::when_completed); });
  EXPECT_TRUE(discarded.ok());
  EXPECT_TRUE(write(1 << 20, 2 * k_page_bytes, Durability::when_completed).ok());
  EXPECT_EQ(device_->statistics()[Counter::errors], 2U);
}

TEST_F(DeviceOverRam, ViewsAndReadsOfHolesTakeNoMemory) {
  ReadView view;
  ASSERT_TRUE(device_->view(queue_, {12'345, 1 << 20}, view));
  std::uint64_t shown = 0;
  for (const iovec& piece : view.pieces) shown += piece.iov_len;
  EXPECT_EQ(shown, 1U << 20);
  std::vector<std::byte> out(1 << 20, std::byte{1});
  EXPECT_TRUE(run_blocking(queue_, [&](Io& io) { return device_->read(io, 500, out); }).ok());
  EXPECT_EQ(out, std::vector<std::byte>(1 << 20));
  EXPECT_EQ(store_->allocated_bytes(), 0U);
}

TEST_F(DeviceOverRam, ChecksRangesOnce) {
  std::vector<std::byte> out(2);
  EXPECT_EQ(run_blocking(queue_, [&](Io& io) { return device_->read(io, k_size_bytes - 1, out); }),
            IoStatus::error(EINVAL));
  EXPECT_EQ(run_blocking(queue_, [&](Io& io) { return device_->read(io, ~std::uint64_t{0}, out); }),
            IoStatus::error(EINVAL));
  EXPECT_EQ(write(k_size_bytes - 1, 2, Durability::with_flush), IoStatus::error(ENOSPC));
  EXPECT_EQ(run_blocking(queue_,
                         [&](Io& io) {
                           return device_->zero(io, {1, ~std::uint64_t{0}}, false, Durability::with_flush);
                         }),
            IoStatus::error(ENOSPC));
  EXPECT_TRUE(write(k_size_bytes, 0, Durability::when_completed).ok());
  EXPECT_TRUE(device_->direct(queue_, {0, k_page_bytes}).memory.empty()) << "the page has no memory yet";
  ASSERT_TRUE(write(0, k_page_bytes, Durability::with_flush).ok());
  EXPECT_EQ(device_->direct(queue_, {100, 200}).memory.size(), 200U);
}

}  // namespace
}  // namespace oxbow
