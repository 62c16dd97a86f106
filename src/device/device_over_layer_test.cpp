// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <expected>
#include <filesystem>
#include <fstream>
#include <random>
#include <stdexcept>

#include "device/device.h"
#include "os/process_info.h"
#include "os/queue.h"
#include "stores/open_stores.h"
#include "support/effort.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/layer_file.h"
#include "targets/cow/open_layer.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_size_bytes = (1 << 20) + 700;

// A directory with a base image of its own; every byte of the base says where it is.
class CowTargetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "oxbow-cow-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    base_bytes_.resize(k_size_bytes);
    for (std::size_t i = 0; i < base_bytes_.size(); ++i)
      base_bytes_[i] = static_cast<char>(1 + (i / 512 * 7 + i) % 251);
    std::ofstream(path("base.img"), std::ios::binary)
        .write(base_bytes_.data(), static_cast<std::streamsize>(k_size_bytes));
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  [[nodiscard]] std::string path(const std::string& name) const { return directory_ + "/" + name; }

  void create(const std::string& name, const std::string& base, native::BaseKind kind) {
    LayerDescription description;
    ASSERT_TRUE(fill_random(std::as_writable_bytes(std::span(description.uuid))));
    description.salt = 42;
    OpenStores stores;
    OpenContext context{.queue = queue_, .stores = stores};
    auto described = describe_base(context, path(base), kind, description.uuid);
    ASSERT_TRUE(described) << described.error().text();
    description.base = described->record;
    description.base_path = base;
    description.size_bytes = described->record.size;
    std::ofstream(path(name)).close();
    auto store = FileStore::open(path(name), {.writable = true});
    ASSERT_TRUE(store);
    auto formatted = format_layer(queue_, **store, description);
    ASSERT_TRUE(formatted) << formatted.error().text();
  }

  std::unique_ptr<Device> open(const std::string& name) {
    OpenContext context{.queue = queue_, .stores = stores_, .writable = true};
    auto layer = open_layer(context, path(name));
    if (!layer) throw std::runtime_error(layer.error().text());
    return std::make_unique<Device>(*layer, Device::Options{.name = name});
  }

  [[nodiscard]] std::string read(Device& device, std::uint64_t at, std::size_t length) {
    std::string out(length, '?');
    const IoStatus status = run_blocking(
        queue_, [&](Io& io) { return device.read(io, at, std::as_writable_bytes(std::span(out))); });
    EXPECT_TRUE(status.ok()) << status.error_number();
    return out;
  }
  void write(Device& device, std::uint64_t at, const std::string& data,
             Durability durability = Durability::with_flush) {
    const IoStatus status = run_blocking(
        queue_, [&](Io& io) { return device.write(io, at, std::as_bytes(std::span(data)), durability); });
    EXPECT_TRUE(status.ok()) << status.error_number();
  }

  Queue queue_;
  OpenStores stores_;
  std::string directory_;
  std::string base_bytes_;
};

TEST_F(CowTargetTest, ShowsTheBaseUntilItIsWritten) {
  create("work.oxb", "base.img", native::BaseKind::raw);
  auto device = open("work.oxb");
  EXPECT_EQ(device->size(), k_size_bytes);
  EXPECT_EQ(read(*device, 0, k_size_bytes), base_bytes_);
}

TEST_F(CowTargetTest, KeepsWhatWasWrittenAcrossACleanEnd) {
  create("work.oxb", "base.img", native::BaseKind::raw);
  std::string expected = base_bytes_;
  {
    auto device = open("work.oxb");
    for (const std::uint64_t at :
         {std::uint64_t{5}, std::uint64_t{4000}, std::uint64_t{500'000}, k_size_bytes - 3}) {
      const std::string data(std::min<std::size_t>(9001, k_size_bytes - at),
                             static_cast<char>('A' + at % 26));
      write(*device, at, data, at == 4000 ? Durability::when_completed : Durability::with_flush);
      expected.replace(at, data.size(), data);
    }
    EXPECT_EQ(read(*device, 0, k_size_bytes), expected);
    const IoStatus zeroed = run_blocking(
        queue_, [&](Io& io) { return device->zero(io, {10'000, 50'000}, false, Durability::with_flush); });
    EXPECT_TRUE(zeroed.ok());
    expected.replace(10'000, 50'000, 50'000, '\0');
    EXPECT_EQ(read(*device, 0, k_size_bytes), expected);
    ASSERT_TRUE(device->close(queue_).ok());
  }
  {
    auto device = open("work.oxb");
    EXPECT_EQ(read(*device, 0, k_size_bytes), expected);
    EXPECT_TRUE(device->close(queue_).ok());
  }
  create("child.oxb", "work.oxb", native::BaseKind::layer);
  auto child = open("child.oxb");
  write(*child, 100, "child");
  expected.replace(100, 5, "child");
  EXPECT_EQ(read(*child, 0, k_size_bytes), expected);
  EXPECT_TRUE(child->close(queue_).ok());
}

// What the kernel finds in the view, or the errno value.
std::expected<std::string, int> sent(const ReadView& view) {
  const UniqueFd to(::memfd_create("sent", MFD_CLOEXEC));
  std::size_t length = 0;
  for (const iovec& piece : view.pieces) length += piece.iov_len;
  const ssize_t result = ::writev(to.get(), view.pieces.begin(), static_cast<int>(view.pieces.size()));
  if (result < 0) return std::unexpected(errno);
  if (static_cast<std::size_t>(result) < length) return std::unexpected(EFAULT);
  std::string bytes(length, '?');
  EXPECT_EQ(::pread(to.get(), bytes.data(), length, 0), static_cast<ssize_t>(length));
  return bytes;
}

TEST_F(CowTargetTest, CachedClustersOfAChainAreMemory) {
  create("work.oxb", "base.img", native::BaseKind::raw);
  {
    auto device = open("work.oxb");
    write(*device, 0, std::string(300'000, 'w'));
    ASSERT_TRUE(device->close(queue_).ok());
  }
  create("child.oxb", "work.oxb", native::BaseKind::layer);
  auto child = open("child.oxb");
  const std::uint64_t seed = test::seed(88);
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int i = 0; i < 20; ++i)
    write(*child, random() % 900'000, std::string(1 + random() % 9000, static_cast<char>('a' + i)));
  const IoStatus zeroed = run_blocking(
      queue_, [&](Io& io) { return child->zero(io, {10'000, 30'000}, false, Durability::with_flush); });
  ASSERT_TRUE(zeroed.ok());
  (void)read(*child, 0, k_size_bytes);
  const std::string expected = read(*child, 0, k_size_bytes);
  int faulting = 0;
  for (int i = 0; i < 500; ++i) {
    const std::uint64_t length = 1 + random() % 20'000;
    const Range range{random() % (k_size_bytes - length + 1), length};
    ReadView view;
    ASSERT_TRUE(child->view(queue_, range, view)) << length << " at " << range.offset;
    ASSERT_EQ(sent(view), expected.substr(range.offset, length)) << length << " at " << range.offset;
    faulting += view.may_fault ? 1 : 0;
  }
  EXPECT_GT(faulting, 400);
  ReadView view;
  ASSERT_TRUE(child->view(queue_, {20'000, 10'000}, view));
  EXPECT_FALSE(view.may_fault) << "zeros are the program's own";
  EXPECT_TRUE(child->close(queue_).ok());
}

TEST_F(CowTargetTest, ABaseCutShortUnderAViewIsAnError) {
  create("work.oxb", "base.img", native::BaseKind::raw);
  auto device = open("work.oxb");
  write(*device, 0, std::string(8192, 'w'));
  (void)read(*device, 0, k_size_bytes);
  (void)read(*device, 0, k_size_bytes);
  ReadView view;
  ASSERT_TRUE(device->view(queue_, {4096, 100'000}, view));
  ASSERT_TRUE(view.may_fault);
  std::filesystem::resize_file(path("base.img"), 50'000);
  EXPECT_EQ(sent(view), std::unexpected(EFAULT));
  ASSERT_EQ(view.files.size(), 2U) << "the layer and its base";
  EXPECT_FALSE(view.files[0]->cut_short());
  EXPECT_TRUE(view.files[1]->cut_short());
  EXPECT_FALSE(device->view(queue_, {48'000, 4096}, view));
  std::string out(4096, '?');
  EXPECT_EQ(
      run_blocking(queue_,
                   [&](Io& io) { return device->read(io, 48'000, std::as_writable_bytes(std::span(out))); }),
      IoStatus::error(EIO));
  ASSERT_TRUE(device->view(queue_, {0, 8192}, view)) << "what the layer has is there";
  EXPECT_EQ(sent(view), std::string(8192, 'w'));
  EXPECT_TRUE(device->close(queue_).ok());
}

// More than one gathered write can hold, up to an end inside a cluster whose rest has to be filled in.
TEST_F(CowTargetTest, ZeroesWithRoomUpToAnOddEnd) {
  constexpr std::uint64_t k_long_bytes = (4 << 20) + 700;
  std::ofstream(path("long.img"), std::ios::binary) << std::string(k_long_bytes, 'x');
  create("work.oxb", "long.img", native::BaseKind::raw);
  auto device = open("work.oxb");
  for (const std::uint64_t at : {std::uint64_t{100}, std::uint64_t{0}, k_long_bytes - 700}) {
    const Range range{at, k_long_bytes - at};
    const IoStatus zeroed =
        run_blocking(queue_, [&](Io& io) { return device->zero(io, range, true, Durability::with_flush); });
    EXPECT_TRUE(zeroed.ok()) << zeroed.error_number();
    EXPECT_EQ(read(*device, at, range.length), std::string(range.length, '\0'));
  }
  EXPECT_TRUE(device->close(queue_).ok());
}

TEST_F(CowTargetTest, KeepsWhatWasFlushedWithoutACleanEnd) {
  create("work.oxb", "base.img", native::BaseKind::raw);
  std::string expected = base_bytes_;
  for (int round = 0; round < 4; ++round) {
    auto device = open("work.oxb");
    EXPECT_EQ(read(*device, 0, k_size_bytes), expected) << round;
    const std::string data(700, static_cast<char>('a' + round));
    write(*device, 100'000 * static_cast<std::uint64_t>(round + 1), data);
    expected.replace(100'000 * static_cast<std::size_t>(round + 1), data.size(), data);
    EXPECT_TRUE(run_blocking(queue_, [&](Io& io) { return device->flush(io); }).ok());
  }
}

}  // namespace
}  // namespace oxbow
