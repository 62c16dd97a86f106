// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "sim/sim_disk.h"
#include "sim/sim_queue.h"
#include "stores/store.h"

namespace oxbow::sim {

enum class StoreCall : std::uint8_t { read, write, durable_write, zero, discard, sync, allocate, grow };
[[nodiscard]] std::string_view name_of(StoreCall call) noexcept;

// A Store on a SimDisk. Each call is done at once or pending, as the queue's Chooser says; a pending one
// takes effect piece by piece, by sectors, at moments that the Chooser picks between submission and
// completion, and so overlaps with the others. After kill() nothing has an effect any more and everything
// fails: so the program above ends in an orderly way, frames and buffers included, after the moment at which
// it crashed. Thread safety: none; that of its queue.
class SimStore final : public Store {
 public:
  struct Options {
    std::string name = "disk";
    bool writable = true;
    unsigned pending_percent = 50;      // of the calls
    bool punches = true;                // whether discard() leaves zeros; else it leaves what was there
    unsigned would_block_percent = 30;  // of the reads with no_wait
  };
  // A call on its way to the disk, as a fault sees it.
  struct Call {
    StoreCall kind;
    Range range;
    std::uint64_t number;  // of the call, from 0 on
  };

  SimStore(SimQueue& queue, std::shared_ptr<SimDisk> disk, Options options);
  ~SimStore() override;

  Progress read(Io& io, std::uint64_t at, std::span<std::byte> out, ReadMode mode) noexcept override;
  Progress write(Io& io, std::uint64_t at, WriteMode mode) noexcept override;
  Progress zero(Io& io, Range range, ZeroMode mode) noexcept override;
  Progress discard(Io& io, Range range) noexcept override;
  Progress sync(Io& io) noexcept override;
  [[nodiscard]] IoStatus written_back() noexcept override { return write_back; }
  Progress allocate(Io& io, Range range) noexcept override;
  Progress grow(Io& io, std::uint64_t size) noexcept override;
  std::uint64_t extents(Range range, Extents& out) noexcept override;
  std::span<const std::byte> view(Range range) noexcept override;
  std::span<std::byte> memory(Range range) noexcept override;
  [[nodiscard]] std::uint64_t size() const noexcept override { return disk_->size(); }
  [[nodiscard]] bool writable() const noexcept override { return options_.writable; }
  [[nodiscard]] std::string describe() const override { return options_.name; }

  void kill() noexcept { dead_ = true; }

  // Asked at every call: an errno value makes it fail, 0 lets it succeed. A write, zero or discard that fails
  // has taken effect in a part of its sectors; a sync or durable write that fails may leave clean what is not durable.
  std::function<int(const Call&)> fault;
  // What written_back() answers.
  IoStatus write_back;
  // Told of every call that is submitted.
  std::function<void(const Call&)> observe;
  // Whether blocks without room are refused with ENOSPC.
  void set_full(bool full) noexcept { full_ = full; }

  [[nodiscard]] SimDisk& disk() noexcept { return *disk_; }
  [[nodiscard]] std::uint64_t calls() const noexcept { return calls_; }

 private:
  struct Operation;
  struct Wanted {
    StoreCall kind;
    Range range;
    std::span<std::byte> out{};
    bool keep_room = false;
    bool at_once = false;
  };
  Progress submit(Io& io, const Wanted& wanted);
  [[nodiscard]] int failure_of(const Operation& operation);
  void cut(Operation& operation);
  void apply(Operation& operation, Range piece);
  void put(Operation& operation, Range piece);
  [[nodiscard]] IoStatus finish(Operation& operation);
  [[nodiscard]] std::unique_ptr<Operation> take();

  SimQueue& queue_;
  std::shared_ptr<SimDisk> disk_;
  Options options_;
  bool dead_ = false;
  bool full_ = false;
  std::uint64_t calls_ = 0;
  std::uint64_t under_way_ = 0;
  std::vector<std::unique_ptr<Operation>> idle_;
};

}  // namespace oxbow::sim
