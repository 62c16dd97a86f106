// SPDX-License-Identifier: Apache-2.0
#include "stores/file/file_store.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "stores/testing/store_model.h"

namespace oxbow {
namespace {

using testing::StoreUser;
using testing::TestFolder;

constexpr std::uint64_t k_mib = 1U << 20;

std::shared_ptr<FileStore> open(const std::string& path, const FileOptions& options) {
  Result<std::shared_ptr<FileStore>> store = FileStore::open(path, options);
  EXPECT_TRUE(store) << store.error().text();
  return store ? *store : nullptr;
}

std::string refusal(const std::string& path, const FileOptions& options = {}) {
  Result<std::shared_ptr<FileStore>> store = FileStore::open(path, options);
  return store ? "" : store.error().text();
}

std::uint64_t allocated_bytes(const std::string& path) {
  struct stat info{};
  EXPECT_EQ(::stat(path.c_str(), &info), 0);
  return static_cast<std::uint64_t>(info.st_blocks) * 512;
}

void drop_cache(const FileStore& store) {
  ASSERT_EQ(::fdatasync(store.descriptor()), 0);
  ASSERT_EQ(::posix_fadvise(store.descriptor(), 0, 0, POSIX_FADV_DONTNEED), 0);
}

TEST(FileStore, AgreesWithAnArrayOfBytes) {
  const TestFolder folder;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const auto store = open(folder.file("disk", k_mib + 777 * seed), {.writable = true});
    testing::run_store_model(*store, {.seed = seed, .steps = 1500});
  }
}

TEST(FileStore, ReadsFromTheMediumArePending) {
  const TestFolder folder;
  const auto store = open(folder.file("disk", 8 * k_mib), {.writable = true});
  Queue queue;
  StoreUser user(queue, *store);
  const auto data = testing::random_bytes(1, 8 * k_mib);
  ASSERT_TRUE(user.write(0, data).ok());
  drop_cache(*store);
  std::vector<std::byte> out(4 * k_mib);
  Io io(queue, [](Io&) noexcept { std::abort(); });
  EXPECT_TRUE(store->read(io, 4 * k_mib, out, ReadMode::no_wait).is_would_block());
  ASSERT_TRUE(user.read(100, std::span(out).first(1000)).ok());
  EXPECT_EQ(std::memcmp(out.data(), data.data() + 100, 1000), 0);
  ASSERT_TRUE(user.read(10, out).ok()) << "part cached, part not";
  EXPECT_EQ(std::memcmp(out.data(), data.data() + 10, out.size()), 0);
  EXPECT_TRUE(store->read(io, 10, out, ReadMode::no_wait).is_done()) << "now it is cached";
}

TEST(FileStore, HolesTakeNoRoom) {
  const TestFolder folder;
  const std::string path = folder.file("disk", 64 * k_mib);
  const auto store = open(path, {.writable = true});
  Queue queue;
  StoreUser user(queue, *store);
  ASSERT_TRUE(user.write(10 * k_mib, testing::random_bytes(1, k_mib)).ok());
  ASSERT_TRUE(user.sync().ok());
  EXPECT_LE(allocated_bytes(path), k_mib + 65536);
  const auto extents = user.extents({0, 64 * k_mib});
  ASSERT_EQ(extents.size(), 3U);
  EXPECT_EQ(extents[0].kind, Kind::zero);
  EXPECT_EQ(extents[0].length, 10 * k_mib);
  EXPECT_EQ(extents[1].kind, Kind::data);
  EXPECT_EQ(extents[1].length, k_mib);
  EXPECT_EQ(extents[2].length, 53 * k_mib);
  ASSERT_TRUE(user.discard({10 * k_mib, k_mib}).ok());
  EXPECT_LE(allocated_bytes(path), 65536U);
  ASSERT_TRUE(user.zero({0, 2 * k_mib}, ZeroMode::allocate).ok());
  EXPECT_GE(allocated_bytes(path), 2 * k_mib);
  ASSERT_TRUE(user.zero({0, 2 * k_mib}, ZeroMode::may_punch).ok());
  EXPECT_LE(allocated_bytes(path), 65536U);
  ASSERT_TRUE(user.allocate({20 * k_mib, k_mib}).ok());
  EXPECT_GE(allocated_bytes(path), k_mib);
  EXPECT_EQ(std::filesystem::file_size(path), 64 * k_mib);
}

TEST(FileStore, GrowsAndNeverShrinks) {
  const TestFolder folder;
  const std::string path = folder.file("disk", 10'000);
  const auto store = open(path, {.writable = true});
  Queue queue;
  StoreUser user(queue, *store);
  EXPECT_EQ(user.grow(9'999).error_number(), EINVAL);
  EXPECT_TRUE(user.grow(10'000).ok());
  EXPECT_TRUE(user.grow(20'001).ok());
  EXPECT_EQ(store->size(), 20'001U);
  EXPECT_EQ(std::filesystem::file_size(path), 20'001U);
  testing::run_store_model(*store, {.seed = 5, .steps = 100});
  std::filesystem::resize_file(path, 30'000);
  EXPECT_EQ(user.grow(25'000).error_number(), ESTALE) << "what somebody else added isn't cut off";
  EXPECT_EQ(std::filesystem::file_size(path), 30'000U);
}

TEST(FileStore, FollowsWhatSomebodyElseAdds) {
  const TestFolder folder;
  const std::string path = folder.file("disk", 10'000);
  const auto store = open(path, {.writable = true});
  Queue queue;
  StoreUser user(queue, *store);
  const auto follow = [&] { return run_blocking(queue, [&](Io& io) { return store->follow_growth(io); }); };
  std::filesystem::resize_file(path, 30'000);
  EXPECT_EQ(store->size(), 10'000U) << "until it is asked to";
  EXPECT_TRUE(follow().ok());
  EXPECT_EQ(store->size(), 30'000U);
  testing::run_store_model(*store, {.seed = 5, .steps = 100});
  std::filesystem::resize_file(path, 20'000);
  EXPECT_TRUE(follow().ok());
  EXPECT_EQ(store->size(), 30'000U) << "what was cut off is an error, not a shorter store";
}

TEST(FileStore, AFileCutShortIsAnError) {
  const TestFolder folder;
  const std::string path = folder.file("disk", 100'000);
  const auto store = open(path, {});
  std::filesystem::resize_file(path, 50'000);
  Queue queue;
  StoreUser user(queue, *store);
  std::vector<std::byte> out(1000);
  EXPECT_EQ(user.read(49'500, out).error_number(), EIO);
  EXPECT_EQ(user.read(60'000, out).error_number(), EIO);
  EXPECT_TRUE(user.read(49'000, out).ok());
  EXPECT_EQ(user.extents({60'000, 1000}).front().kind, Kind::data) << "not zeros";
}

TEST(FileStore, ReadOnlyRefusesToChangeAnything) {
  const TestFolder folder;
  const auto store = open(folder.file("disk", 8192), {});
  Queue queue;
  StoreUser user(queue, *store);
  EXPECT_FALSE(store->writable());
  EXPECT_EQ(user.write(0, testing::random_bytes(1, 10)).error_number(), EROFS);
  EXPECT_EQ(user.zero({0, 10}, ZeroMode::may_punch).error_number(), EROFS);
  EXPECT_EQ(user.discard({0, 10}).error_number(), EROFS);
  EXPECT_EQ(user.allocate({0, 10}).error_number(), EROFS);
  EXPECT_EQ(user.grow(10'000).error_number(), EROFS);
  EXPECT_TRUE(user.sync().ok());
}

TEST(FileStore, TellsWhyItCannotBeOpened) {
  const TestFolder folder;
  const std::string missing = folder.path("missing");
  EXPECT_EQ(refusal(missing), "cannot open file: " + missing + ": No such file or directory");
  EXPECT_EQ(refusal("/"), "cannot open file: /: it is a directory, not a file or block device");
  EXPECT_EQ(refusal("/dev/null"),
            "cannot open file: /dev/null: it is neither a regular file nor a block device");
  const std::string fifo = folder.path("fifo");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_EQ(refusal(fifo), "cannot open file: " + fifo + ": it is neither a regular file nor a block device");
}

TEST(FileStore, TellsOfARefusedPermission) {
  const TestFolder folder;
  const std::string path = folder.file("disk", 4096);
  ASSERT_EQ(::chmod(path.c_str(), 0), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (::geteuid() == 0 && ::seteuid(65534) != 0) ::_exit(2);
    ::_exit(refusal(path) == "cannot open file: " + path + ": Permission denied" ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST(FileStore, IdentityFollowsTheFile) {
  const TestFolder folder;
  const std::string path = folder.file("disk", 5000);
  const auto store = open(path, {.writable = true});
  struct stat info{};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(store->identity().dev, info.st_dev);
  EXPECT_EQ(store->identity().inode, info.st_ino);
  EXPECT_EQ(store->identity().mtime_ns, info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec);
  EXPECT_EQ(store->identity().size_bytes, 5000U);
  EXPECT_FALSE(store->identity().block_device);
  const timespec times[2] = {{1, 0}, {12, 345}};
  ASSERT_EQ(::futimens(store->descriptor(), times), 0);
  const auto now = store->current_identity();
  ASSERT_TRUE(now);
  EXPECT_EQ(now->mtime_ns, 12'000'000'345);
  EXPECT_TRUE(now->same_file(store->identity()));
}

// Opens in another process; returns the error's text, empty when it worked.
std::string refusal_elsewhere(const std::string& path, const FileOptions& options) {
  int fds[2];
  EXPECT_EQ(::pipe(fds), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string text = refusal(path, options);
    const ssize_t written = ::write(fds[1], text.data(), text.size());
    ::_exit(written == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  ::close(fds[1]);
  std::string text(4096, '\0');
  const ssize_t length = ::read(fds[0], text.data(), text.size());
  ::close(fds[0]);
  int status = 1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  text.resize(length < 0 ? 0 : static_cast<std::size_t>(length));
  return text;
}

TEST(FileStore, LocksKeepProcessesApart) {
  const TestFolder folder;
  const std::string path = folder.file("disk", 8192);
  const std::string in_use = "cannot open file: " + path + ": it is in use by another process";
  const FileOptions shared{.lock = LockMode::shared};
  const FileOptions exclusive{.writable = true, .lock = LockMode::exclusive};
  auto store = open(path, exclusive);
  EXPECT_EQ(refusal_elsewhere(path, exclusive), in_use);
  EXPECT_EQ(refusal_elsewhere(path, shared), in_use);
  EXPECT_EQ(refusal_elsewhere(path, {}), "");
  ASSERT_TRUE(store->lock_shared());
  EXPECT_EQ(store->lock_mode(), LockMode::shared);
  EXPECT_EQ(refusal_elsewhere(path, shared), "");
  EXPECT_EQ(refusal_elsewhere(path, exclusive), in_use);
  const auto base = open(path, shared);
  const auto converted = store->lock_exclusive();
  ASSERT_FALSE(converted);
  EXPECT_EQ(converted.error().text(), "cannot lock file: " + path + ": it is in use by another process");
  EXPECT_EQ(store->lock_mode(), LockMode::shared);
  EXPECT_EQ(refusal_elsewhere(path, exclusive), in_use) << "the shared lock stayed";
  store = nullptr;
  EXPECT_EQ(refusal_elsewhere(path, exclusive), in_use) << "the base's lock remains";
}

}  // namespace
}  // namespace oxbow
