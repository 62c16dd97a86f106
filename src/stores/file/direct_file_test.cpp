// SPDX-License-Identifier: Apache-2.0
#include "stores/file/direct_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "stores/testing/store_model.h"
#include "support/effort.h"

namespace oxbow {
namespace {

using testing::StoreUser;
using testing::TestFolder;

constexpr std::uint64_t k_mib = 1U << 20;
constexpr FileOptions k_direct{.writable = true, .direct = true};

class DirectFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!FileStore::open(folder_.file("probe", 8192), k_direct)) {
      GTEST_SKIP() << "SKIP: the file system of the working folder does not support direct I/O";
    }
  }

  std::shared_ptr<FileStore> open(const std::string& name, std::uint64_t size) {
    path_ = folder_.file(name, size);
    Result<std::shared_ptr<FileStore>> store = FileStore::open(path_, k_direct);
    EXPECT_TRUE(store) << store.error().text();
    return store ? *store : nullptr;
  }

  // What another program finds in the file.
  [[nodiscard]] std::vector<std::byte> contents() const {
    std::vector<std::byte> bytes(std::filesystem::file_size(path_));
    std::ifstream file(path_, std::ios::binary);
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    EXPECT_TRUE(file.good());
    return bytes;
  }

  TestFolder folder_;
  std::string path_;
};

TEST_F(DirectFileTest, AgreesWithAnArrayOfBytes) {
  std::uint64_t seed = 1;
  for (const std::uint64_t size :
       {k_mib, k_mib + 512 * 3, k_mib + 777, std::uint64_t{4096 + 1}, std::uint64_t{700}}) {
    const auto store = open("disk", size);
    ASSERT_TRUE(store->direct());
    testing::run_store_model(*store, {.seed = seed++, .steps = 400, .longest_bytes = 600'000});
    EXPECT_EQ(std::filesystem::file_size(path_), size) << "the tail doesn't make the file longer";
  }
}

TEST_F(DirectFileTest, OthersFindWhatWasWritten) {
  const auto store = open("disk", k_mib + 777);
  Queue queue;
  StoreUser user(queue, *store);
  auto data = testing::random_bytes(1, k_mib + 777);
  ASSERT_TRUE(user.write(0, data).ok());
  ASSERT_TRUE(user.zero({5000, 20'000}, ZeroMode::may_punch).ok());
  ASSERT_TRUE(user.discard({k_mib - 9999, 10'500}).ok());
  std::fill_n(data.begin() + 5000, 20'000, std::byte{});
  std::fill_n(data.begin() + k_mib - 9999, 10'500, std::byte{});
  ASSERT_TRUE(user.sync().ok());
  EXPECT_EQ(contents(), data);
}

TEST_F(DirectFileTest, AlignedTransfersArePendingAndNoWaitWouldBlock) {
  const auto store = open("disk", k_mib);
  Queue queue;
  if (queue.ring() == nullptr) GTEST_SKIP() << "SKIP: the kernel gives no io_uring";
  const Buffer buffer = queue.buffers().take(8192);
  Io io(queue, [](Io& self) noexcept { self.status = IoStatus::error(ENOMSG); });
  EXPECT_TRUE(store->read(io, 4096, buffer.bytes(), ReadMode::no_wait).is_would_block());
  EXPECT_TRUE(store->read(io, 4096, buffer.bytes(), ReadMode::may_wait).is_pending());
  while (io.status.ok()) queue.wait(), queue.poll();
  io.status = {};
  io.iov.clear();
  io.iov.push_back({buffer.bytes().data(), buffer.bytes().size()});
  EXPECT_TRUE(store->write(io, 4096, WriteMode::durable).is_pending());
  while (io.status.ok()) queue.wait(), queue.poll();
}

TEST_F(DirectFileTest, DurableWritesAreDoneAtOnceForWhoeverMayWait) {
  const std::string path = folder_.file("ring", k_mib);
  const auto store = FileStore::open(path, {.writable = true, .direct = true, .durable_blocks = true});
  ASSERT_TRUE(store) << store.error().text();
  Queue queue;
  const Buffer buffer = queue.buffers().take(8192);
  std::ranges::fill(buffer.bytes(), std::byte{'r'});
  Io io(queue, [](Io&) noexcept {});
  io.iov.push_back({buffer.bytes().data(), buffer.bytes().size()});
  const Progress written = (*store)->write(io, 4096, WriteMode::durable);
  ASSERT_TRUE(written.is_done());
  EXPECT_TRUE(written.status().ok());
  path_ = path;
  EXPECT_EQ(contents()[4096 + 8191], std::byte{'r'});
}

TEST_F(DirectFileTest, GrowsOverItsTail) {
  const auto store = open("disk", 10'000);
  Queue queue;
  StoreUser user(queue, *store);
  auto data = testing::random_bytes(3, 10'000);
  ASSERT_TRUE(user.write(0, data).ok());
  for (const std::uint64_t size : {10'001U, 12'288U, 50'000U, 65'536U, 70'001U}) {
    ASSERT_TRUE(user.grow(size).ok());
    const auto more = testing::random_bytes(size, size - data.size());
    std::vector<std::byte> out(size, std::byte{1});
    ASSERT_TRUE(user.read(0, out).ok());
    data.resize(size);
    EXPECT_EQ(out, data) << "new bytes are zeros";
    ASSERT_TRUE(user.write(size - more.size(), more).ok());
    std::copy(more.begin(), more.end(), data.end() - static_cast<std::ptrdiff_t>(more.size()));
    ASSERT_TRUE(user.read(0, out).ok());
    EXPECT_EQ(out, data);
  }
  EXPECT_EQ(contents(), data);
}

TEST_F(DirectFileTest, NeighboursInABlockKeepApart) {
  const auto rounds = static_cast<unsigned>(test::repetitions(300, 3000));
  constexpr unsigned threads = 3;
  constexpr std::uint64_t share = 3000;  // so that shares meet within blocks and in the tail
  const auto store = open("disk", 4 * threads * share + 100);
  std::vector<std::thread> running;
  for (unsigned thread = 0; thread < threads; ++thread) {
    running.emplace_back([&store, thread, rounds] {
      Queue queue;
      StoreUser user(queue, *store);
      std::mt19937_64 random(thread);
      for (unsigned round = 0; round < rounds; ++round) {
        const std::uint64_t at = (round % 4 * threads + thread) * share;
        const std::vector<std::byte> data(share, static_cast<std::byte>(random()));
        std::vector<std::byte> out(share);
        if (round % 8 < 4) {
          EXPECT_TRUE(user.write(at, data).ok());
        } else {
          EXPECT_TRUE(user.zero({at, share}, ZeroMode::may_punch).ok());
          EXPECT_TRUE(user.write(at + 7, std::span(data).subspan(7, share - 9)).ok());
          EXPECT_TRUE(user.write(at, std::span(data).first(7)).ok());
          EXPECT_TRUE(user.write(at + share - 2, std::span(data).last(2)).ok());
        }
        EXPECT_TRUE(user.read(at, out).ok());
        EXPECT_EQ(out, data) << "thread " << thread << " round " << round;
      }
    });
  }
  for (std::thread& each : running) each.join();
}

// Many writes of parts of the same blocks in flight on one queue.
TEST_F(DirectFileTest, OverlappingBlocksInFlightKeepApart) {
  constexpr std::size_t writes = 64;
  constexpr std::uint64_t share = 700;
  const auto store = open("disk", writes * share);
  Queue queue;
  StoreUser user(queue, *store);
  auto data = testing::random_bytes(8, writes * share);
  struct Write : Io {
    Write(Queue& owner, unsigned& count)
        : Io(owner, [](Io& self) noexcept { --static_cast<Write&>(self).left; }), left(count) {}
    unsigned& left;
  };
  unsigned left = writes;
  std::vector<std::unique_ptr<Write>> flying;
  for (std::size_t index = 0; index < writes; ++index) {
    auto& io = flying.emplace_back(std::make_unique<Write>(queue, left));
    io->iov.push_back({data.data() + index * share, share});
    if (store->write(*io, index * share, WriteMode::cached).is_done()) --left;
  }
  while (left > 0) {
    if (!queue.poll()) queue.wait();
  }
  for (const auto& io : flying) EXPECT_TRUE(io->status.ok());
  std::vector<std::byte> out(data.size());
  ASSERT_TRUE(user.read(0, out).ok());
  EXPECT_EQ(out, data);
}

TEST(DirectFile, TellsWhereDirectIoIsNotSupported) {
  const auto store = FileStore::open("/proc/self/status", {.direct = true});
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().text(),
            "cannot open file: /proc/self/status: its file system does not support direct I/O (O_DIRECT); "
            "leave direct I/O off");
}

}  // namespace
}  // namespace oxbow
