// SPDX-License-Identifier: Apache-2.0
#pragma once

// For tests of single rules: one device whose power can fail.

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "crash/sim_target.h"
#include "device/device.h"
#include "os/test_request.h"
#include "sim/sim_store.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/layer_file.h"

namespace oxbow::crash {

inline constexpr std::uint64_t k_device_bytes = 64 * 1024;

// Finds nothing that is not durable. Thread safety: none.
class Worst final : public sim::PowerLoss {
 public:
  [[nodiscard]] std::size_t survivor(std::uint64_t /*sector*/,
                                     std::span<const sim::OperationId> /*operations*/) override {
    return 0;
  }
};

// A simulated device over one layer, or over a plain disk. Thread safety: none.
struct World {
  explicit World(std::uint64_t seed, unsigned pending = 50)
      : random(seed), queue(random, trace), options{.pending_percent = pending} {}

  void open_plain() {
    disk = std::make_shared<sim::SimDisk>(pool, k_device_bytes);
    store = std::make_shared<sim::SimStore>(queue, disk, options);
    device = std::make_unique<Device>(std::make_shared<SimTarget>(store, true), Device::Options{}, queue);
  }
  void open_layer(std::uint64_t size = k_device_bytes) {
    LayerDescription description;
    description.size_bytes = size;
    open_layer(std::move(description));
  }
  // Over `base_disk`, when there is one.
  void open_layer(LayerDescription description) {
    disk = std::make_shared<sim::SimDisk>(pool, 0);
    store = std::make_shared<sim::SimStore>(queue, disk, options);
    description.max_size_bytes = description.size_bytes;
    if (base_disk != nullptr) {
      description.base.kind = native::BaseKind::raw;
      description.base.size = base_disk->size();
      description.base_path = "below";
    }
    ASSERT_TRUE(format_layer(queue, *store, description));
    open_again();
  }
  void open_again() {
    device.reset();
    store = std::make_shared<sim::SimStore>(queue, disk, options);
    std::shared_ptr<Target> base;
    if (base_disk != nullptr) {
      base = std::make_shared<SimTarget>(std::make_shared<sim::SimStore>(queue, base_disk, options), false);
    }
    CowTarget::Options how{.writable = true};
    if (with_ring) {
      how.ring = store;
      how.ring_growth = {
          .small_flushes = 1, .first_bytes = 32 << 10, .step_bytes = 32 << 10, .most_bytes = 64 << 10};
    }
    auto target = CowTarget::open(queue, store, std::move(base), std::move(how));
    ASSERT_TRUE(target) << target.error().text();
    superblock = (*target)->superblock();
    device = std::make_unique<Device>(std::move(*target), Device::Options{}, queue);
  }
  // The process dies when it asks for a barrier the `count`th time from now on.
  void die_at_sync(unsigned count) {
    store->observe = [this, count](const sim::SimStore::Call& call) mutable {
      if (call.kind == sim::StoreCall::sync && --count == 0) store->kill();
    };
  }
  void power_loss(sim::PowerLoss& loss) {
    disk = std::make_shared<sim::SimDisk>(*disk);
    disk->lose_power(loss);
    open_again();
  }
  void kill() {
    disk->forget_submitter();
    open_again();
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
  // The letter that fills the sector at `at`, '.' for zeros, '!' when it can't be read.
  [[nodiscard]] char letter(std::uint64_t at) {
    std::array<std::byte, k_sector_bytes> bytes{};
    const IoStatus status = run_blocking(queue, [&](Io& io) { return device->read(io, at, bytes); });
    const char first = static_cast<char>(bytes[0]);
    return !status.ok() ? '!' : first == 0 ? '.' : first;
  }
  // The byte of the plain disk at `at` after a power loss that takes all it may.
  [[nodiscard]] std::byte after_loss(std::uint64_t at) const {
    sim::SimDisk copy = *disk;
    Worst worst;
    copy.lose_power(worst);
    std::byte value{};
    copy.read({at, 1}, {&value, 1});
    return value;
  }

  sim::SectorPool pool;
  sim::Trace trace;
  sim::Random random;
  sim::SimQueue queue;
  sim::SimStore::Options options;
  std::shared_ptr<sim::SimDisk> disk;
  std::shared_ptr<sim::SimDisk> base_disk;
  std::shared_ptr<sim::SimStore> store;
  std::unique_ptr<Device> device;
  native::Superblock superblock{};
  bool with_ring = false;
};

[[nodiscard]] inline std::vector<std::byte> letters(char letter, std::size_t length = 4096) {
  return std::vector<std::byte>(length, static_cast<std::byte>(letter));
}

}  // namespace oxbow::crash
