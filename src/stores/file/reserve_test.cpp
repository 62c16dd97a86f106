// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>

#include "os/queue.h"
#include "stores/file/file_store.h"

namespace oxbow {
namespace {

// A file of 1 MiB whose first half is there.
class ReserveTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = std::filesystem::path(testing::TempDir()) / "oxbow_reserve_test.img";
    std::ofstream(path_, std::ios::binary) << std::string(512 << 10, 'x');
    std::filesystem::resize_file(path_, 1 << 20);
  }
  void TearDown() override { std::filesystem::remove(path_); }
  [[nodiscard]] std::shared_ptr<FileStore> open(std::uint64_t reserve_bytes, bool direct = false) {
    auto store = FileStore::open(path_, {.writable = true, .direct = direct, .reserve_bytes = reserve_bytes});
    EXPECT_TRUE(store) << store.error().text();
    return *store;
  }
  std::filesystem::path path_;
};

TEST_F(ReserveTest, WithoutOneThereIsAlwaysRoom) {
  EXPECT_TRUE(open(0)->room({0, std::uint64_t{1} << 62}).ok());
}

TEST_F(ReserveTest, WhatIsLeftAboveItMayBeTaken) {
  const auto store = open(1);
  EXPECT_TRUE(store->room({0, 1 << 20}).ok());
  EXPECT_EQ(store->room({0, std::numeric_limits<std::uint64_t>::max() / 4}), IoStatus::error(ENOSPC))
      << "more than there is";
}

TEST_F(ReserveTest, WhatIsThereNeedsNoRoom) {
  const auto store = open(std::uint64_t{1} << 60);
  EXPECT_EQ(store->room({512 << 10, 4096}), IoStatus::error(ENOSPC));
  EXPECT_EQ(store->room({(512 << 10) - 4096, 8192}), IoStatus::error(ENOSPC));
  EXPECT_TRUE(store->room({0, 512 << 10}).ok());
  Queue queue;
  EXPECT_EQ(run_blocking(queue, [&](Io& io) { return store->allocate(io, {512 << 10, 4096}); }),
            IoStatus::error(ENOSPC));
}

}  // namespace
}  // namespace oxbow
