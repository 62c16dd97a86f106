// SPDX-License-Identifier: Apache-2.0
// Zeros with room, zeros that have to be quick, and hints, over each kind of device.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "device/device.h"
#include "os/queue.h"
#include "os/task.h"
#include "stores/file/file_store.h"
#include "stores/ram/ram_store.h"
#include "stores/testing/store_model.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/layer_file.h"
#include "targets/fake_store.h"
#include "targets/linear/linear_target.h"

namespace oxbow {
namespace {

using testing::TestFolder;

constexpr std::uint64_t k_size_bytes = (1 << 20) + 300;
constexpr std::uint64_t k_cluster_bytes = 4096;

std::shared_ptr<Target> whole(const std::shared_ptr<Store>& store) {
  return std::make_shared<LinearTarget>(store, "store", Range{0, store->size()}, true);
}

std::shared_ptr<FileStore> open_file(const std::string& path, bool direct = false) {
  auto store = FileStore::open(path, {.writable = true, .direct = direct});
  if (!store) throw std::runtime_error(store.error().text());
  return *store;
}

std::uint64_t room_bytes(const std::string& path) {
  struct stat found{};
  if (::stat(path.c_str(), &found) != 0) throw std::runtime_error("cannot look at " + path);
  return static_cast<std::uint64_t>(found.st_blocks) * 512;
}

// The first 64 KiB, where a layer keeps its superblocks, and when anything was written last.
std::string state_of(const std::string& path) {
  std::string head(64 << 10, '\0');
  std::ifstream(path, std::ios::binary).read(head.data(), static_cast<std::streamsize>(head.size()));
  return head + std::to_string(std::filesystem::last_write_time(path).time_since_epoch().count());
}

class DeviceZero : public ::testing::Test {
 protected:
  // A layer without a base.
  std::shared_ptr<CowTarget> layer(const std::string& name) {
    std::ofstream(folder_.path(name)).close();
    auto store = open_file(folder_.path(name));
    LayerDescription description;
    description.size_bytes = k_size_bytes;
    description.uuid = native::Uuid{1};
    EXPECT_TRUE(format_layer(queue_, *store, description));
    auto target = CowTarget::open(queue_, store, nullptr, {.writable = true});
    EXPECT_TRUE(target) << target.error().text();
    return *target;
  }
  int zero(Device& device, Range range, bool allocate, ZeroSpeed speed) {
    return run_blocking(
               queue_,
               [&](Io& io) { return device.zero(io, range, allocate, Durability::with_flush, speed); })
        .error_number();
  }
  int write(Device& device, std::uint64_t at, std::span<const std::byte> data) {
    return run_blocking(queue_, [&](Io& io) { return device.write(io, at, data, Durability::with_flush); })
        .error_number();
  }
  std::vector<std::byte> read(Device& device, Range range) {
    std::vector<std::byte> out(range.length, std::byte{0xff});
    EXPECT_TRUE(run_blocking(queue_, [&](Io& io) { return device.read(io, range.offset, out); }).ok());
    return out;
  }

  Queue queue_;
  TestFolder folder_;
};

TEST_F(DeviceZero, FastWithoutRoomOnlyOnARamDisk) {
  auto store = RamStore::create({.size_bytes = k_size_bytes});
  ASSERT_TRUE(store);
  Device device(whole(*store), {.name = "ram"});
  const auto data = testing::random_bytes(1, k_size_bytes);
  ASSERT_EQ(write(device, 0, data), 0);
  EXPECT_EQ(zero(device, {0, k_size_bytes}, true, ZeroSpeed::fast), EOPNOTSUPP);
  EXPECT_EQ(read(device, {0, k_size_bytes}), data);
  EXPECT_EQ(zero(device, {0, k_size_bytes}, false, ZeroSpeed::fast), 0);
  EXPECT_EQ(read(device, {0, k_size_bytes}), std::vector<std::byte>(k_size_bytes));
  EXPECT_EQ((*store)->allocated_bytes(), 0U);
  EXPECT_EQ(zero(device, {0, k_size_bytes}, true, ZeroSpeed::any), 0);
  EXPECT_GE((*store)->allocated_bytes(), k_size_bytes);
}

TEST_F(DeviceZero, FastIsRefusedWhereZerosWouldBeWritten) {
  // This store fails whatever it is asked to do, with another error.
  auto store = std::make_shared<FakeStore>(k_size_bytes);
  Device device(whole(store), {.name = "slow"});
  EXPECT_EQ(zero(device, {0, k_size_bytes}, false, ZeroSpeed::fast), EOPNOTSUPP);
  EXPECT_EQ(zero(device, {0, k_size_bytes}, true, ZeroSpeed::fast), EOPNOTSUPP);
  EXPECT_EQ(zero(device, {0, k_size_bytes}, false, ZeroSpeed::any), EIO);
  // What is wrong in any case is said in any case.
  EXPECT_EQ(zero(device, {1, k_size_bytes}, false, ZeroSpeed::fast), ENOSPC);
  EXPECT_EQ(zero(device, {0, 0}, false, ZeroSpeed::fast), 0);
  Device read_only(whole(store), {.name = "slow", .read_only = true});
  EXPECT_EQ(zero(read_only, {0, 1}, false, ZeroSpeed::fast), EPERM);
}

TEST_F(DeviceZero, FilesGiveRoomBackOrKeepIt) {
  for (const bool direct : {false, true}) {
    const std::string path = folder_.file(direct ? "direct.img" : "plain.img", k_size_bytes);
    Device device(whole(open_file(path, direct)), {.name = path});
    ASSERT_EQ(write(device, 0, testing::random_bytes(2, k_size_bytes)), 0);
    const std::uint64_t full = room_bytes(path);
    EXPECT_GE(full, k_size_bytes);
    EXPECT_EQ(zero(device, {0, k_size_bytes}, true, ZeroSpeed::any), 0);
    EXPECT_GE(room_bytes(path), k_size_bytes) << "with room";
    EXPECT_EQ(read(device, {0, k_size_bytes}), std::vector<std::byte>(k_size_bytes));
    ASSERT_EQ(write(device, 0, testing::random_bytes(3, k_size_bytes)), 0);
    EXPECT_EQ(zero(device, {0, k_size_bytes}, false, ZeroSpeed::fast), 0);
    EXPECT_LT(room_bytes(path), full / 4);
    EXPECT_EQ(read(device, {0, k_size_bytes}), std::vector<std::byte>(k_size_bytes));
    EXPECT_EQ(std::filesystem::file_size(path), k_size_bytes) << "asking whether it is fast changes nothing";
    // A hole gets room as well.
    EXPECT_EQ(zero(device, {4096, 512 << 10}, true, ZeroSpeed::any), 0);
    EXPECT_GE(room_bytes(path), 512U << 10);
  }
}

TEST_F(DeviceZero, LayersTakeWholeClustersFast) {
  auto target = layer("a.oxb");
  Device device(target, {.name = "layer"});
  const std::string before = state_of(folder_.path("a.oxb"));
  EXPECT_EQ(zero(device, {1, k_cluster_bytes}, false, ZeroSpeed::fast), EOPNOTSUPP) << "it covers none";
  EXPECT_EQ(zero(device, {0, 512}, false, ZeroSpeed::fast), EOPNOTSUPP);
  EXPECT_EQ(state_of(folder_.path("a.oxb")), before) << "not even a session was begun";

  const auto data = testing::random_bytes(4, k_size_bytes);
  ASSERT_EQ(write(device, 0, data), 0);
  EXPECT_EQ(zero(device, {100, 3 * k_cluster_bytes}, false, ZeroSpeed::fast), 0) << "edges may be written";
  EXPECT_EQ(read(device, {100, 3 * k_cluster_bytes}), std::vector<std::byte>(3 * k_cluster_bytes));
  EXPECT_EQ(target->states().state(1), ClusterState::zero);
  // The last cluster is short, and whole.
  EXPECT_EQ(zero(device, {1 << 20, 300}, false, ZeroSpeed::fast), 0);
  EXPECT_EQ(target->states().state(256), ClusterState::zero);
  EXPECT_EQ(zero(device, {0, k_size_bytes}, false, ZeroSpeed::fast), 0);
  EXPECT_EQ(read(device, {0, k_size_bytes}), std::vector<std::byte>(k_size_bytes));
}

TEST_F(DeviceZero, LayersAllocateWhatKeepsRoom) {
  auto target = layer("b.oxb");
  Device device(target, {.name = "layer"});
  const std::uint64_t empty = room_bytes(folder_.path("b.oxb"));
  EXPECT_EQ(zero(device, {0, 64 * k_cluster_bytes}, false, ZeroSpeed::any), 0);
  EXPECT_LT(room_bytes(folder_.path("b.oxb")), empty + 64 * k_cluster_bytes);
  EXPECT_EQ(target->states().state(5), ClusterState::zero);
  EXPECT_EQ(zero(device, {0, 64 * k_cluster_bytes}, true, ZeroSpeed::any), 0);
  EXPECT_GE(room_bytes(folder_.path("b.oxb")), empty + 64 * k_cluster_bytes);
  EXPECT_EQ(target->states().state(5), ClusterState::data);
  EXPECT_EQ(read(device, {0, 64 * k_cluster_bytes}), std::vector<std::byte>(64 * k_cluster_bytes));
}

TEST_F(DeviceZero, CacheReadsAheadAndChecksTheRange) {
  const std::string path = folder_.file("cold.img", 4 << 20);
  {
    Device device(whole(open_file(path)), {.name = path});
    ASSERT_EQ(write(device, 0, testing::random_bytes(5, 4 << 20)), 0);
    ASSERT_TRUE(run_blocking(queue_, [&](Io& io) { return device.flush(io); }).ok());
  }
  auto store = open_file(path);
  Device device(whole(store), {.name = path});
  const auto cache = [&](Range range) {
    return run_blocking(queue_, [&](Io& io) { return device.cache(io, range); }).error_number();
  };
  EXPECT_EQ(cache({0, (4 << 20) + 1}), EINVAL);
  EXPECT_EQ(cache({~std::uint64_t{0}, 2}), EINVAL);
  EXPECT_EQ(cache({4 << 20, 0}), 0);
  store->drop_cache();
  EXPECT_EQ(cache({0, 4 << 20}), 0);
  // All of it is there soon, although nobody has read it.
  std::vector<std::byte> out(4 << 20);
  bool there = false;
  for (int i = 0; i < 500 && !there; ++i) {
    WaitIo io(queue_);
    there = store->read(io, 0, out, ReadMode::no_wait).is_done();
    if (!there) ::usleep(10'000);
  }
  EXPECT_TRUE(there);
  EXPECT_EQ(out, testing::random_bytes(5, 4 << 20));
}

}  // namespace
}  // namespace oxbow
