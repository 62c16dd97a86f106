// SPDX-License-Identifier: Apache-2.0
// What FileStore::view() hands out. The tests look at it as everybody has to: through the kernel.
#include "stores/file/file_views.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <filesystem>

#include "stores/file/file_store.h"
#include "stores/testing/store_model.h"

namespace oxbow {
namespace {

using testing::StoreUser;
using testing::TestFolder;

constexpr std::uint64_t k_mib = 1U << 20;

// A store of 4 random MiB that nothing has been read from.
class FileViewsTest : public ::testing::Test {
 protected:
  void SetUp() override { start(folder_.file("disk", 0)); }

  void start(const std::string& path) {
    path_ = path;
    const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_TRUE(write_all(fd.get(), 0, data_));
    ASSERT_EQ(::fdatasync(fd.get()), 0);
    Result<std::shared_ptr<FileStore>> store = FileStore::open(path, {.writable = true});
    ASSERT_TRUE(store) << store.error().text();
    store_ = *store;
    user_ = std::make_unique<StoreUser>(queue_, *store_);
  }

  static bool write_all(int fd, off_t at, std::span<const std::byte> bytes) {
    return ::pwrite(fd, bytes.data(), bytes.size(), at) == static_cast<ssize_t>(bytes.size());
  }

  void read(Range range) {
    std::vector<std::byte> out(range.length);
    ASSERT_TRUE(user_->read(range.offset, out).ok());
  }

  // Into the cache, and then from there.
  void warm(Range range) {
    read(range);
    std::vector<std::byte> out(range.length);
    Io io(queue_, [](Io&) noexcept { std::abort(); });
    const Progress progress = store_->read(io, range.offset, out, ReadMode::no_wait);
    ASSERT_TRUE(progress.is_done() && progress.status().ok());
  }

  // What the kernel finds there, or the errno value.
  static std::expected<std::vector<std::byte>, int> sent(std::span<const std::byte> view) {
    const UniqueFd to(::memfd_create("sent", MFD_CLOEXEC));
    const ssize_t result = ::write(to.get(), view.data(), view.size());
    if (result < 0) return std::unexpected(errno);
    std::vector<std::byte> bytes(static_cast<std::size_t>(result));
    EXPECT_EQ(::pread(to.get(), bytes.data(), bytes.size(), 0), result);
    return bytes;
  }

  [[nodiscard]] std::vector<std::byte> expected(Range range) const {
    const auto part = std::span(data_).subspan(range.offset, range.length);
    return {part.begin(), part.end()};
  }

  [[nodiscard]] std::uint64_t allocated_bytes() const {
    struct stat info{};
    EXPECT_EQ(::stat(path_.c_str(), &info), 0);
    return static_cast<std::uint64_t>(info.st_blocks) * 512;
  }

  TestFolder folder_;
  std::string path_;
  std::vector<std::byte> data_ = testing::random_bytes(1, 4 * k_mib);
  Queue queue_;
  std::shared_ptr<FileStore> store_;
  std::unique_ptr<StoreUser> user_;
};

TEST_F(FileViewsTest, WhatWasReadOrWrittenIsHandedOutAndNothingElse) {
  EXPECT_TRUE(store_->view({0, 4096}).empty());
  warm({10'000, 5000});
  const auto view = store_->view({8192, 8192});
  ASSERT_EQ(view.size(), 8192U);
  EXPECT_EQ(sent(view), expected({8192, 8192}));
  EXPECT_TRUE(store_->view({8191, 10}).empty()) << "one page of it was not read";
  EXPECT_TRUE(store_->view({16'000, 1000}).empty());
  const auto written = testing::random_bytes(2, 100);
  ASSERT_TRUE(user_->write(k_mib, written).ok());
  EXPECT_EQ(sent(store_->view({k_mib, 100})), written);
  EXPECT_TRUE(store_->memory({k_mib, 100}).empty()) << "nobody receives into a file";
}

TEST_F(FileViewsTest, WritesAndHolesShowInWhatIsOut) {
  warm({0, k_mib});
  const auto view = store_->view({0, 8192});
  const auto written = testing::random_bytes(3, 4096);
  ASSERT_TRUE(user_->write(4096, written).ok());
  EXPECT_EQ(sent(view.subspan(4096)), written);
  ASSERT_TRUE(user_->discard({0, 8192}).ok());
  EXPECT_EQ(sent(view), std::vector<std::byte>(8192));
  EXPECT_TRUE(store_->view({0, 4096}).empty());
  EXPECT_FALSE(store_->view({8192, 4096}).empty());
}

TEST_F(FileViewsTest, AFileCutShortIsAnErrorAndNoSignal) {
  warm({0, 4 * k_mib});
  const auto whole = store_->view({0, 4 * k_mib});
  ASSERT_FALSE(whole.empty());
  EXPECT_FALSE(store_->cut_short());
  std::filesystem::resize_file(path_, k_mib + 100);
  EXPECT_EQ(sent(whole.subspan(2 * k_mib)), std::unexpected(EFAULT));
  EXPECT_EQ(sent(whole.first(k_mib)), expected({0, k_mib}));
  EXPECT_TRUE(store_->cut_short()) << "or zeros would be sent from behind the file's end";
  EXPECT_TRUE(store_->view({k_mib, 4096}).empty());
  std::vector<std::byte> out(4096);
  EXPECT_EQ(user_->read(k_mib, out), IoStatus::error(EIO));
}

TEST_F(FileViewsTest, PagesThatTheKernelDroppedAreFoundOut) {
  warm({0, 4 * k_mib});
  ASSERT_FALSE(store_->view({0, 4096}).empty());
  ASSERT_EQ(::posix_fadvise(store_->descriptor(), 0, 0, POSIX_FADV_DONTNEED), 0);
  EXPECT_TRUE(store_->view({k_mib, k_mib}).empty()) << "a large one is tested each time";
  EXPECT_TRUE(store_->view({0, 4096}).empty()) << "and a neighbour with it";
  warm({0, 4 * k_mib});
  EXPECT_EQ(sent(store_->view({0, k_mib})), expected({0, k_mib}));
}

TEST_F(FileViewsTest, SmallOnesAreTestedNowAndThen) {
  warm({0, 4 * k_mib});
  ASSERT_EQ(::posix_fadvise(store_->descriptor(), 0, 0, POSIX_FADV_DONTNEED), 0);
  int handed_out = 0;
  while (!store_->view({4096, 4096}).empty()) ASSERT_LT(++handed_out, 64);
}

TEST_F(FileViewsTest, DroppingTheCacheDropsWhatIsMapped) {
  warm({0, k_mib});
  EXPECT_EQ(sent(store_->view({0, k_mib})), expected({0, k_mib}));
  store_->drop_cache();
  EXPECT_TRUE(store_->view({0, 4096}).empty());
  std::vector<std::byte> out(4096);
  Io io(queue_, [](Io&) noexcept { std::abort(); });
  EXPECT_TRUE(store_->read(io, k_mib / 2, out, ReadMode::no_wait).is_would_block());
}

TEST_F(FileViewsTest, GrowingKeepsWhatIsOut) {
  warm({0, k_mib});
  const auto view = store_->view({0, k_mib});
  ASSERT_TRUE(user_->grow(6 * k_mib).ok());
  EXPECT_EQ(sent(view), expected({0, k_mib}));
  EXPECT_TRUE(store_->view({0, k_mib}).empty());
  warm({3 * k_mib, 3 * k_mib});
  EXPECT_EQ(sent(store_->view({5 * k_mib, k_mib})), std::vector<std::byte>(k_mib));
}

TEST_F(FileViewsTest, PastTheCacheThereAreNone) {
  Result<std::shared_ptr<FileStore>> direct = FileStore::open(path_, {.direct = true});
  if (!direct) GTEST_SKIP() << "SKIP: " << direct.error().text();
  StoreUser user(queue_, **direct);
  std::vector<std::byte> out(8192);
  ASSERT_TRUE(user.read(0, out).ok());
  ASSERT_TRUE(user.read(0, out).ok());
  EXPECT_TRUE((*direct)->view({0, 4096}).empty());
}

TEST_F(FileViewsTest, HolesOfATmpfsStayHoles) {
  struct statfs info{};
  if (::statfs("/dev/shm", &info) != 0 || info.f_type != TMPFS_MAGIC) GTEST_SKIP() << "SKIP: no tmpfs";
  std::string folder = "/dev/shm/oxbow-test-XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  start(folder + "/disk");
  warm({0, k_mib});
  EXPECT_EQ(sent(store_->view({0, k_mib})), expected({0, k_mib}));
  ASSERT_TRUE(user_->discard({0, k_mib}).ok());
  const std::uint64_t before = allocated_bytes();
  warm({0, k_mib + 4096});
  EXPECT_TRUE(store_->view({0, 4096}).empty());
  EXPECT_EQ(allocated_bytes(), before);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace oxbow
