// SPDX-License-Identifier: Apache-2.0
// File stores on a block device: a loop device over a file, where this process may make one.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstring>

#include "os/fd.h"
#include "stores/file/file_store.h"
#include "stores/open_stores.h"
#include "stores/testing/store_model.h"

namespace oxbow {
namespace {

using testing::StoreUser;
using testing::TestFolder;

constexpr std::uint64_t k_mib = 1U << 20;

class BlockDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!attach()) GTEST_SKIP() << "SKIP: no loop device can be made here: " << std::strerror(errno);
  }

  // Finds a free loop device; another process may take it first, so tries a few times.
  bool attach() {
    const UniqueFd control(::open("/dev/loop-control", O_RDWR | O_CLOEXEC));
    const UniqueFd file(::open(folder_.file("disk", 4 * k_mib).c_str(), O_RDWR | O_CLOEXEC));
    if (!control.valid()) return false;
    for (int attempt = 0; attempt < 20; ++attempt) {
      const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
      if (number < 0) return false;
      path_ = "/dev/loop" + std::to_string(number);
      device_ = UniqueFd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
      if (!device_.valid()) return false;
      loop_config config{};
      config.fd = static_cast<__u32>(file.get());
      config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
      if (::ioctl(device_.get(), LOOP_CONFIGURE, &config) == 0) return true;
      if (errno != EBUSY) return false;
    }
    return false;
  }

  std::shared_ptr<FileStore> open(const FileOptions& options) {
    Result<std::shared_ptr<FileStore>> store = FileStore::open(path_, options);
    EXPECT_TRUE(store) << store.error().text();
    return store ? *store : nullptr;
  }

  TestFolder folder_;
  UniqueFd device_;
  std::string path_;
};

TEST_F(BlockDeviceTest, BufferedAgreesWithAnArrayOfBytes) {
  const auto store = open({.writable = true});
  EXPECT_TRUE(store->identity().block_device);
  EXPECT_EQ(store->size(), 4 * k_mib);
  testing::run_store_model(*store, {.seed = 1, .steps = 600});
}

TEST_F(BlockDeviceTest, DirectAgreesWithAnArrayOfBytes) {
  const auto store = open({.writable = true, .direct = true});
  testing::run_store_model(*store, {.seed = 2, .steps = 300});
}

TEST_F(BlockDeviceTest, IsOneDataExtentOfFixedSize) {
  const auto store = open({.writable = true});
  Queue queue;
  StoreUser user(queue, *store);
  ASSERT_TRUE(user.zero({0, 4 * k_mib}, ZeroMode::may_punch).ok());
  const auto extents = user.extents({5, k_mib});
  ASSERT_EQ(extents.size(), 1U);
  EXPECT_EQ(extents[0].kind, Kind::data);
  EXPECT_TRUE(user.allocate({0, k_mib}).ok());
  EXPECT_TRUE(user.grow(4 * k_mib).ok());
  EXPECT_EQ(user.grow(4 * k_mib + 512).error_number(), ENOSPC);
  EXPECT_EQ(user.grow(k_mib).error_number(), EINVAL);
}

TEST_F(BlockDeviceTest, IsOpenedForWritingOnce) {
  const FileOptions exclusive{.writable = true, .lock = LockMode::exclusive};
  const auto store = open(exclusive);
  const auto again = FileStore::open(path_, exclusive);
  ASSERT_FALSE(again);
  EXPECT_EQ(again.error().text(), "cannot open file: " + path_ +
                                      ": the block device is in use (mounted, or opened by another process)");
}

TEST_F(BlockDeviceTest, IsTheSameByEveryNode) {
  struct stat info{};
  ASSERT_EQ(::fstat(device_.get(), &info), 0);
  const std::string node = folder_.path("node");
  if (::mknod(node.c_str(), S_IFBLK | 0600, info.st_rdev) != 0)
    GTEST_SKIP() << "SKIP: no device node can be made here";
  const FileOptions exclusive{.writable = true, .lock = LockMode::exclusive};
  OpenStores stores;
  const auto first = stores.open_file(path_, exclusive);
  const auto second = stores.open_file(node, exclusive);
  ASSERT_TRUE(first) << first.error().text();
  ASSERT_TRUE(second) << second.error().text();
  EXPECT_EQ(*first, *second);
}

}  // namespace
}  // namespace oxbow
