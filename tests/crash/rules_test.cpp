// SPDX-License-Identifier: Apache-2.0
// Single rules of the durability contract, each in a scenario as small as it can be.
#include <gtest/gtest.h>

#include <cstring>

#include "crash/sim_target.h"
#include "device/device.h"
#include "sim/sim_store.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/layer_file.h"

namespace oxbow::crash {
namespace {

using sim::Random;
using sim::SimDisk;
using sim::SimQueue;
using sim::SimStore;
using sim::StoreCall;

constexpr std::uint64_t k_device_bytes = 64 * 1024;

// Finds nothing that is not durable.
class Worst final : public sim::PowerLoss {
 public:
  [[nodiscard]] std::size_t survivor(std::uint64_t /*sector*/,
                                     std::span<const sim::OperationId> /*operations*/) override {
    return 0;
  }
};

struct Request : Io {
  explicit Request(Queue& owner)
      : Io(owner, [](Io& self) noexcept {
          auto& request = static_cast<Request&>(self);
          request.answered(Progress::done(request.status));
        }) {}
  void answered(Progress progress) {
    if (!progress.is_done()) return;
    ended = true;
    result = progress.status();
  }
  bool ended = false;
  IoStatus result;
};

// A simulated device over one layer without a base, or over a plain disk.
struct World {
  explicit World(std::uint64_t seed) : random(seed), queue(random, trace) {}

  void open_plain() {
    disk = std::make_shared<SimDisk>(pool, k_device_bytes);
    store = std::make_shared<SimStore>(queue, disk, SimStore::Options{});
    device = std::make_unique<Device>(std::make_shared<SimTarget>(store, true), Device::Options{}, queue);
  }
  void open_layer() {
    disk = std::make_shared<SimDisk>(pool, 0);
    store = std::make_shared<SimStore>(queue, disk, SimStore::Options{});
    LayerDescription description;
    description.size_bytes = k_device_bytes;
    description.max_size_bytes = k_device_bytes;
    ASSERT_TRUE(format_layer(queue, *store, description));
    auto target = CowTarget::open(queue, store, nullptr, {.writable = true});
    ASSERT_TRUE(target) << target.error().text();
    device = std::make_unique<Device>(std::move(*target), Device::Options{}, queue);
  }
  void write(Request& request, std::uint64_t at, std::span<const std::byte> data, bool durable) {
    request.answered(
        device->write(request, at, data, durable ? Durability::when_completed : Durability::with_flush));
  }
  [[nodiscard]] IoStatus write_now(std::uint64_t at, std::span<const std::byte> data, bool durable = false) {
    return run_blocking(queue, [&](Io& io) {
      return device->write(io, at, data, durable ? Durability::when_completed : Durability::with_flush);
    });
  }
  [[nodiscard]] IoStatus flush_now() {
    return run_blocking(queue, [&](Io& io) { return device->flush(io); });
  }
  // The byte of the plain disk at `at` after a power loss that takes all it may.
  [[nodiscard]] std::byte after_loss(std::uint64_t at) const {
    SimDisk copy = *disk;
    Worst worst;
    copy.lose_power(worst);
    std::byte value{};
    copy.read({at, 1}, {&value, 1});
    return value;
  }

  sim::SectorPool pool;
  sim::Trace trace;
  Random random;
  SimQueue queue;
  std::shared_ptr<SimDisk> disk;
  std::shared_ptr<SimStore> store;
  std::unique_ptr<Device> device;
};

const std::vector<std::byte> k_data(4096, std::byte{'x'});

// A barrier that fails may leave clean what it didn't write, and the next one doesn't hear of it: so nothing that
// was under way at that moment may be promised.
TEST(FailedBarrier, FailsTheFlushThatRunsBesideIt) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    World world(seed);
    world.open_plain();
    ASSERT_TRUE(world.write_now(0, k_data).ok());
    world.store->fault = [](const SimStore::Call& call) {
      return call.kind == StoreCall::durable_write ? EIO : 0;
    };
    Request flush(world.queue);
    Request durable(world.queue);
    flush.answered(world.device->flush(flush));
    world.write(durable, 8192, k_data, true);
    world.queue.drain();
    ASSERT_TRUE(flush.ended && durable.ended);
    EXPECT_FALSE(durable.result.ok());
    if (flush.result.ok()) {
      EXPECT_EQ(world.after_loss(0), std::byte{'x'}) << "seed " << seed;
    }
  }
}

TEST(FailedBarrier, FailsTheDurableWriteThatRunsBesideIt) {
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    World world(seed);
    world.open_plain();
    world.store->fault = [](const SimStore::Call& call) { return call.kind == StoreCall::sync ? EIO : 0; };
    Request flush(world.queue);
    Request durable(world.queue);
    flush.answered(world.device->flush(flush));
    world.write(durable, 8192, k_data, true);
    world.queue.drain();
    EXPECT_FALSE(flush.result.ok());
    if (durable.result.ok()) {
      EXPECT_EQ(world.after_loss(8192), std::byte{'x'}) << "seed " << seed;
    }
  }
}

// Records and pages have room before the first change is acknowledged: a full disk stops new data only.
TEST(FullDisk, LeavesFlushesAndACleanCloseWorking) {
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    World world(seed);
    world.open_layer();
    ASSERT_TRUE(world.write_now(0, k_data).ok());
    world.store->set_full(true);
    EXPECT_EQ(world.write_now(4096, k_data), IoStatus::error(ENOSPC));
    EXPECT_TRUE(world.flush_now().ok()) << "seed " << seed;
    EXPECT_TRUE(world.write_now(0, k_data).ok());
    EXPECT_TRUE(world.device->close(world.queue).ok()) << "seed " << seed;
  }
}

}  // namespace
}  // namespace oxbow::crash
