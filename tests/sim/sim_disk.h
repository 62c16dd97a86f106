// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "os/fixed.h"
#include "oxbow/range.h"
#include "sim/chooser.h"
#include "sim/sector_pool.h"

namespace oxbow::sim {

// One write, punch, growth, … on a disk. Zero is no operation.
using OperationId = std::uint32_t;
// A moment in the life of a disk; grows with every completion and every barrier.
using Stamp = std::uint64_t;

// Decides what of the things that no barrier covers is found after a power loss. Thread safety: none.
class PowerLoss {
 public:
  PowerLoss() noexcept = default;
  virtual ~PowerLoss() = default;
  PowerLoss(const PowerLoss&) = delete;
  PowerLoss& operator=(const PowerLoss&) = delete;
  PowerLoss(PowerLoss&&) = delete;
  PowerLoss& operator=(PowerLoss&&) = delete;

  // Which version of `sector` is found: 0 for the durable one, i for that of operations[i - 1] (oldest first,
  // never empty).
  [[nodiscard]] virtual std::size_t survivor(std::uint64_t sector,
                                             std::span<const OperationId> operations) = 0;
};

// A file on a disk with a volatile cache, sector by sector. What was put is seen at once; after a power loss
// a sector has its durable contents or those of any later operation, independently of all other sectors.
// Barriers make durable what had completed before they were submitted. Copies are cheap: they share the
// contents. Thread safety: none.
class SimDisk {
 public:
  // `pool` is borrowed, and outlives the disk and its copies.
  SimDisk(SectorPool& pool, std::uint64_t size_bytes)
      : pool_(&pool), durable_size_(size_bytes), size_(size_bytes) {}

  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  void read(Range range, std::span<std::byte> out) const;
  // Whether the 4 KiB block that holds byte `at` was put or allocated and not punched since.
  [[nodiscard]] bool has_room(std::uint64_t at) const;
  // Where the next block that has room begins, from the block that holds byte `at` on; UINT64_MAX when there is none.
  [[nodiscard]] std::uint64_t next_room(std::uint64_t at) const;

  // An operation takes effect piece by piece between begin() and complete(). One that fails is never
  // completed.
  [[nodiscard]] OperationId begin();
  void put(OperationId operation, std::uint64_t at, std::span<const std::byte> data);
  void zero(OperationId operation, Range range, bool keep_room);
  void allocate(Range range);
  void grow(OperationId operation, std::uint64_t size_bytes);
  void complete(OperationId operation);
  // What has taken effect of `operation` is durable, and whatever it replaced is gone.
  void make_durable(OperationId operation, Range range);

  // A barrier: remember submit_barrier(), and give it to complete_barrier() when it succeeded.
  [[nodiscard]] Stamp submit_barrier() noexcept { return ++clock_; }
  void complete_barrier(Stamp submitted);
  // A barrier that failed: what is not durable yet may be taken for clean, and then no later barrier makes it
  // so.
  void fail_barrier(Chooser& chooser);
  // Whether one failed since the last power loss.
  [[nodiscard]] bool barrier_failed() const noexcept { return barrier_failed_; }

  // Whoever submitted operations is gone: what took effect of those that did not complete is in the cache like
  // everything else, and the next barrier covers it.
  void forget_submitter();
  // Power fails: what is found from now on is what `how` chose.
  void lose_power(PowerLoss& how);
  // The operations with something that is not durable, oldest first.
  [[nodiscard]] std::vector<OperationId> undurable_operations() const;

  // Damage to what is on the disk, durable at once.
  void flip_bit(std::uint64_t at, unsigned bit);
  // What was meant for `to` also (or instead) went to `from`'s place: copies `length` bytes.
  void misdirect(std::uint64_t from, std::uint64_t to, std::uint64_t length);

 private:
  static constexpr std::uint64_t k_block_bytes = 4096;
  static constexpr std::uint64_t k_block_sectors = k_block_bytes / k_sector_bytes;
  static constexpr std::uint32_t k_none = UINT32_MAX;

  struct Version {
    ContentId content;
    OperationId operation;
    std::uint32_t older;  // index into versions_, or k_none
    bool lost = false;    // no barrier makes it durable any more
  };
  struct Sector {
    ContentId durable = ContentId::zeros;
    ContentId current = ContentId::zeros;
    std::uint32_t newest = k_none;  // what is not durable, newest first
  };
  struct Block {
    std::uint64_t number = 0;
    bool room = false;
    Sector sectors[k_block_sectors];
  };

  [[nodiscard]] Block& block(std::uint64_t number);
  void give_room(Block& block);
  [[nodiscard]] const Block* find(std::uint64_t number) const;
  void put_sector(OperationId operation, std::uint64_t sector, std::uint64_t offset,
                  std::span<const std::byte> data);
  void add_version(OperationId operation, Block& block, std::uint64_t index, ContentId content);
  // `version`, which `newer` stands in front of (k_none: the sector), is what is durable from now on.
  void settle(Sector& sector, std::uint32_t version, std::uint32_t newer);
  [[nodiscard]] bool covered(const Version& version, Stamp barrier) const;
  void put_durable(std::uint64_t at, std::span<const std::byte> data);
  template <typename F>
  void for_each_dirty(F&& visit);

  SectorPool* pool_;
  std::unordered_map<std::uint64_t, std::uint32_t> index_;  // block number -> index into blocks_
  std::vector<Block> blocks_;
  std::vector<std::uint32_t> dirty_;  // blocks_ that may hold something that is not durable
  std::vector<Version> versions_;
  std::vector<Stamp> completed_{0};  // by operation; 0: not yet
  Stamp clock_ = 0;
  bool barrier_failed_ = false;
  struct Room {
    std::uint32_t block;
    Stamp given;
  };
  std::vector<Room> fresh_room_;  // that no barrier covers
  struct Growth {
    std::uint64_t size;
    OperationId operation;
  };
  std::uint64_t durable_size_;
  std::vector<Growth> growths_;
  std::uint64_t size_;
};

// Power losses by chance, in one of several ways that are drawn per loss: by sector, by block, by operation,
// nothing but one operation, all but one, and so on. Thread safety: none.
class RandomLoss final : public PowerLoss {
 public:
  RandomLoss(Chooser& chooser, const SimDisk& disk);
  [[nodiscard]] std::size_t survivor(std::uint64_t sector, std::span<const OperationId> operations) override;

 private:
  enum class Way : std::uint8_t {
    none,
    all,
    sectors,
    blocks,
    operations,
    only_one,
    all_but_one,
    older_than,
    torn
  };
  [[nodiscard]] bool keeps(OperationId operation) const;

  Chooser& chooser_;
  Way way_;
  OperationId special_ = 0;
  std::uint64_t salt_;
};

}  // namespace oxbow::sim
