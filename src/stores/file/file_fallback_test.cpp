// SPDX-License-Identifier: Apache-2.0
// File stores where the kernel or the file system lacks something.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mount.h>

#include <cstring>

#include "os/fd.h"
#include "stores/file/file_store.h"
#include "stores/testing/store_model.h"

namespace oxbow {
namespace {

using testing::StoreUser;
using testing::TestFolder;

// A file system of its own that nobody else sees and that ends with it. Thread safety: one thread.
class PrivateMount {
 public:
  explicit PrivateMount(const char* type) {
    const UniqueFd context(::fsopen(type, FSOPEN_CLOEXEC));
    if (!context.valid()) return;
    if (::fsconfig(context.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) != 0) return;
    root_ = UniqueFd(::fsmount(context.get(), FSMOUNT_CLOEXEC, 0));
  }
  [[nodiscard]] bool mounted() const { return root_.valid(); }
  // An empty file of `size` bytes.
  [[nodiscard]] std::string file(std::uint64_t size) const {
    std::string path = "/proc/self/fd/" + std::to_string(root_.get()) + "/disk";
    const UniqueFd made(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    EXPECT_TRUE(made.valid());
    std::filesystem::resize_file(path, size);
    return path;
  }

  [[nodiscard]] bool make_read_only() const {
    mount_attr attributes{};
    attributes.attr_set = MOUNT_ATTR_RDONLY;
    return ::mount_setattr(root_.get(), "", AT_EMPTY_PATH, &attributes, sizeof attributes) == 0;
  }

 private:
  UniqueFd root_;
};

#define OXBOW_NEEDS(mount) \
  if (!(mount).mounted()) GTEST_SKIP() << "SKIP: no file system can be mounted here: " << std::strerror(errno)

std::shared_ptr<FileStore> open_store(const std::string& path, const FileOptions& options) {
  Result<std::shared_ptr<FileStore>> store = FileStore::open(path, options);
  EXPECT_TRUE(store) << store.error().text();
  return store ? *store : nullptr;
}

bool all(std::span<const std::byte> bytes, int value) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [value](std::byte b) { return b == static_cast<std::byte>(value); });
}

// tmpfs punches holes but has no FALLOC_FL_ZERO_RANGE.
TEST(FileFallback, TmpfsAgreesWithAnArrayOfBytes) {
  const PrivateMount tmpfs("tmpfs");
  OXBOW_NEEDS(tmpfs);
  const auto store = open_store(tmpfs.file(1'000'001), {.writable = true});
  testing::run_store_model(*store, {.seed = 1, .steps = 500});
}

// ramfs has neither fallocate nor RWF_NOWAIT nor O_DIRECT.
TEST(FileFallback, WithoutFallocateZerosAreWrittenAndDiscardsDoNothing) {
  const PrivateMount ramfs("ramfs");
  OXBOW_NEEDS(ramfs);
  constexpr std::size_t size = 3'000'000;
  const auto store = open_store(ramfs.file(size), {.writable = true});
  Queue queue;
  StoreUser user(queue, *store);
  const std::vector<std::byte> data(size, std::byte{7});
  std::vector<std::byte> out(size);
  for (int round = 0; round < 2; ++round) {  // first found out, then remembered
    ASSERT_TRUE(user.write(0, data).ok());
    ASSERT_TRUE(user.discard({1, size - 2}).ok());
    ASSERT_TRUE(user.read(0, out).ok());
    EXPECT_EQ(out, data);
    for (const ZeroMode mode : {ZeroMode::may_punch, ZeroMode::allocate}) {
      ASSERT_TRUE(user.write(0, data).ok());
      ASSERT_TRUE(user.zero({5, size - 10}, mode).ok());
      ASSERT_TRUE(user.read(0, out).ok());
      EXPECT_TRUE(all(std::span(out).first(5), 7) && all(std::span(out).last(5), 7));
      EXPECT_TRUE(all(std::span(out).subspan(5, size - 10), 0));
    }
    EXPECT_EQ(user.allocate({0, size}).error_number(), EOPNOTSUPP);
    Io io(queue, [](Io&) noexcept { std::abort(); });
    EXPECT_TRUE(store->read(io, 0, out, ReadMode::no_wait).is_done());
    EXPECT_EQ(user.extents({0, size}).front().kind, Kind::data);
  }
}

TEST(FileFallback, TellsWhereDirectIoIsNotSupported) {
  const PrivateMount ramfs("ramfs");
  OXBOW_NEEDS(ramfs);
  const std::string path = ramfs.file(8192);
  const auto store = FileStore::open(path, {.direct = true});
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().text(),
            "cannot open file: " + path +
                ": its file system does not support direct I/O (O_DIRECT); leave direct I/O off");
}

TEST(FileFallback, TellsOfAReadOnlyFileSystem) {
  const PrivateMount tmpfs("tmpfs");
  OXBOW_NEEDS(tmpfs);
  const std::string path = tmpfs.file(8192);
  ASSERT_TRUE(tmpfs.make_read_only());
  const auto store = FileStore::open(path, {.writable = true});
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().text(), "cannot open file: " + path + ": its file system is mounted read-only");
  EXPECT_TRUE(FileStore::open(path, {}));
}

TEST(FileFallback, WithoutARingTransfersBlock) {
  const TestFolder folder;
  for (const bool direct : {false, true}) {
    Result<std::shared_ptr<FileStore>> store =
        FileStore::open(folder.file("disk", 300'001), {.writable = true, .direct = direct});
    if (!store && direct) GTEST_SKIP() << "SKIP: " << store.error().text();
    ASSERT_TRUE(store) << store.error().text();
    testing::run_store_model(**store, {.seed = 2, .steps = 200, .without_ring = true});
  }
}

}  // namespace
}  // namespace oxbow
