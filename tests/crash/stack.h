// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "crash/live_place.h"
#include "crash/shape.h"
#include "device/device.h"
#include "os/canary.h"
#include "os/log.h"
#include "oxbow/error.h"
#include "sim/sim_store.h"
#include "targets/cow/cow_target.h"
#include "targets/cowloop/cowloop_target.h"

namespace oxbow::crash {

// The files of a chain: a base, if any, and the layers that were made so far, lowest first. Copying it names
// the same disks again; clone() copies the disks. Thread safety: none.
struct Disks {
  std::shared_ptr<sim::SimDisk> base;
  std::vector<std::shared_ptr<sim::SimDisk>> layers;
  std::shared_ptr<LivePlace> live = std::make_shared<LivePlace>();  // of the topmost layer

  [[nodiscard]] Disks clone() const;
  // Power fails on all of them.
  void lose_power(sim::Chooser& chooser);
  // The files' caches go; what else is in memory stays.
  void drop_caches(sim::Chooser& chooser);
};

// What layers have beyond their size.
inline constexpr std::uint64_t k_room_to_grow_bytes = 8 << 20;

// One process's view of the files: queue, stores, targets, device; everything that a kill ends.
// Thread safety: none.
class Stack {
 public:
  // All three are borrowed.
  Stack(sim::Chooser& chooser, sim::Trace& trace, const Shape& shape)
      : shape_(shape), queue_(chooser, trace) {}
  ~Stack();
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  Stack(Stack&&) = delete;
  Stack& operator=(Stack&&) = delete;

  // Opens the chain as production does, the top layer for writing when asked. Without any layer the base is the device.
  // A layer that is only to be read, but whose last writes only the live state has, is made clean first.
  [[nodiscard]] Result<void> open(const Disks& disks, bool writable, unsigned pending_percent);
  // Makes an empty disk the next layer over `disks`.
  [[nodiscard]] Result<void> format(const Disks& disks, const std::shared_ptr<sim::SimDisk>& disk,
                                    std::uint64_t salt);

  // From now on nothing has an effect: everything that is in flight or will be asked for fails.
  void kill() noexcept;

  [[nodiscard]] sim::SimQueue& queue() noexcept { return queue_; }
  [[nodiscard]] Device& device() noexcept { return *device_; }
  [[nodiscard]] CowTarget& top() noexcept { return *top_; }
  // Of the topmost layer, or of the cowfile.
  [[nodiscard]] std::uint32_t cluster_shift() const noexcept;
  [[nodiscard]] std::uint64_t data_offset() const noexcept;
  // Which pause for lack of room the device is in, counted from 1; 0 when it is in none.
  [[nodiscard]] std::uint64_t pause() const noexcept { return pauses_.now(); }
  // Of the base and the layers, lowest first.
  [[nodiscard]] std::span<const std::shared_ptr<sim::SimStore>> stores() const noexcept { return stores_; }

 private:
  // Counts pauses by the lines that say that one begins, and that it has ended. Thread safety: none.
  class Pauses final : public Log {
   public:
    void write(LogLevel /*level*/, std::string_view topic, std::string_view /*line*/) noexcept override {
      if (topic == "device.room") ++lines_;
    }
    [[nodiscard]] std::uint64_t now() const noexcept { return lines_ % 2 == 0 ? 0 : lines_ / 2 + 1; }

   private:
    std::uint64_t lines_ = 0;
  };

  // Answers whether the layer has to be opened for writing first.
  [[nodiscard]] Result<bool> open_once(const Disks& disks, bool writable, unsigned pending_percent);
  [[nodiscard]] Result<void> open_pair(const Disks& disks, bool writable, unsigned pending_percent);
  [[nodiscard]] Result<void> format_pair(const Disks& disks, sim::SimStore& store);
  void make_device(std::shared_ptr<Target> target, bool writable);
  [[nodiscard]] std::shared_ptr<sim::SimStore> add_store(const std::shared_ptr<sim::SimDisk>& disk,
                                                         std::string name, bool writable, bool punches,
                                                         unsigned pending_percent);

  const Shape& shape_;
  sim::SimQueue queue_;
  Pauses pauses_;
  std::vector<std::shared_ptr<sim::SimStore>> stores_;
  std::shared_ptr<CowTarget> top_;
  std::shared_ptr<CowloopTarget> pair_;
  std::unique_ptr<Device> device_;
};

}  // namespace oxbow::crash
