// SPDX-License-Identifier: Apache-2.0
#include "sim/sim_disk.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace oxbow::sim {

SimDisk::Block& SimDisk::block(std::uint64_t number) {
  const auto [place, fresh] = index_.try_emplace(number, static_cast<std::uint32_t>(blocks_.size()));
  if (fresh) {
    blocks_.emplace_back();
    blocks_.back().number = number;
  }
  return blocks_[place->second];
}

void SimDisk::give_room(Block& block) {
  if (block.room) return;
  block.room = true;
  fresh_room_.push_back({static_cast<std::uint32_t>(&block - blocks_.data()), ++clock_});
}

const SimDisk::Block* SimDisk::find(std::uint64_t number) const {
  const auto place = index_.find(number);
  return place == index_.end() ? nullptr : &blocks_[place->second];
}

bool SimDisk::has_room(std::uint64_t at) const {
  const Block* found = find(at / k_block_bytes);
  return found != nullptr && found->room;
}

std::uint64_t SimDisk::next_room(std::uint64_t at) const {
  std::uint64_t next = UINT64_MAX;
  for (const Block& each : blocks_) {
    if (each.room && each.number >= at / k_block_bytes) next = std::min(next, each.number * k_block_bytes);
  }
  return next;
}

void SimDisk::read(Range range, std::span<std::byte> out) const {
  assert(range.fits(size_) && out.size() == range.length);
  while (!range.empty()) {
    const Block* found = find(range.offset / k_block_bytes);
    const std::uint64_t in_block = range.offset % k_block_bytes;
    const std::uint64_t in_sector = in_block % k_sector_bytes;
    if (found == nullptr) {
      const std::uint64_t length = std::min(range.length, k_block_bytes - in_block);
      std::memset(out.data(), 0, length);
      range = range.without_prefix(length);
      out = out.subspan(length);
      continue;
    }
    const std::uint64_t length = std::min(range.length, k_sector_bytes - in_sector);
    const SectorBytes& bytes = pool_->at(found->sectors[in_block / k_sector_bytes].current);
    std::memcpy(out.data(), bytes.data() + in_sector, length);
    range = range.without_prefix(length);
    out = out.subspan(length);
  }
}

OperationId SimDisk::begin() {
  completed_.push_back(0);
  return static_cast<OperationId>(completed_.size() - 1);
}

void SimDisk::complete(OperationId operation) { completed_[operation] = ++clock_; }

void SimDisk::add_version(OperationId operation, Block& block, std::uint64_t index, ContentId content) {
  Sector& sector = block.sectors[index];
  if (std::none_of(std::begin(block.sectors), std::end(block.sectors),
                   [](const Sector& each) { return each.newest != k_none; })) {
    dirty_.push_back(static_cast<std::uint32_t>(&block - blocks_.data()));
  }
  versions_.push_back({content, operation, sector.newest, false});
  sector.newest = static_cast<std::uint32_t>(versions_.size() - 1);
  sector.current = content;
}

void SimDisk::put_sector(OperationId operation, std::uint64_t sector, std::uint64_t offset,
                         std::span<const std::byte> data) {
  Block& in = block(sector / k_block_sectors);
  give_room(in);
  const std::uint64_t index = sector % k_block_sectors;
  SectorBytes bytes = pool_->at(in.sectors[index].current);
  std::memcpy(bytes.data() + offset, data.data(), data.size());
  add_version(operation, in, index, pool_->add(bytes));
}

void SimDisk::put(OperationId operation, std::uint64_t at, std::span<const std::byte> data) {
  assert((Range{at, data.size()}).fits(size_));
  while (!data.empty()) {
    const std::uint64_t offset = at % k_sector_bytes;
    const std::uint64_t length = std::min<std::uint64_t>(data.size(), k_sector_bytes - offset);
    put_sector(operation, at / k_sector_bytes, offset, data.first(length));
    at += length;
    data = data.subspan(length);
  }
}

void SimDisk::zero(OperationId operation, Range range, bool keep_room) {
  static constexpr SectorBytes k_nothing{};
  for (Range left = range; !left.empty();) {
    // What was never put needs no version: zeros before, zeros after.
    if (find(left.offset / k_block_bytes) == nullptr) {
      left = left.without_prefix(std::min(left.length, k_block_bytes - left.offset % k_block_bytes));
      continue;
    }
    const std::uint64_t offset = left.offset % k_sector_bytes;
    const std::uint64_t length = std::min(left.length, k_sector_bytes - offset);
    put_sector(operation, left.offset / k_sector_bytes, offset, std::span(k_nothing).first(length));
    left = left.without_prefix(length);
  }
  if (keep_room) return allocate(range);
  const std::uint64_t first = (range.offset + k_block_bytes - 1) / k_block_bytes;
  for (std::uint64_t number = first; (number + 1) * k_block_bytes <= range.end(); ++number) {
    if (const auto place = index_.find(number); place != index_.end()) blocks_[place->second].room = false;
  }
}

void SimDisk::allocate(Range range) {
  if (range.empty()) return;
  for (std::uint64_t number = range.offset / k_block_bytes; number * k_block_bytes < range.end(); ++number) {
    give_room(block(number));
  }
}

void SimDisk::grow(OperationId operation, std::uint64_t size_bytes) {
  assert(size_bytes >= size_);
  growths_.push_back({size_bytes, operation});
  size_ = size_bytes;
}

template <typename F>
void SimDisk::for_each_dirty(F&& visit) {
  std::erase_if(dirty_, [&](std::uint32_t index) {
    Block& each = blocks_[index];
    bool clean = true;
    for (std::uint64_t i = 0; i < k_block_sectors; ++i) {
      Sector& sector = each.sectors[i];
      if (sector.newest != k_none) visit(each.number * k_block_sectors + i, sector);
      clean = clean && sector.newest == k_none;
    }
    return clean;
  });
}

void SimDisk::settle(Sector& sector, std::uint32_t version, std::uint32_t newer) {
  sector.durable = versions_[version].content;
  (newer == k_none ? sector.newest : versions_[newer].older) = k_none;
}

bool SimDisk::covered(const Version& version, Stamp barrier) const {
  const Stamp completed = completed_[version.operation];
  return !version.lost && completed != 0 && completed < barrier;
}

void SimDisk::complete_barrier(Stamp submitted) {
  for_each_dirty([&](std::uint64_t /*number*/, Sector& sector) {
    std::uint32_t newer = k_none;
    std::uint32_t at = sector.newest;
    while (at != k_none && !covered(versions_[at], submitted)) {
      newer = at;
      at = versions_[at].older;
    }
    if (at != k_none) settle(sector, at, newer);
  });
  std::erase_if(fresh_room_, [submitted](const Room& room) { return room.given < submitted; });
  while (!growths_.empty() && completed_[growths_.front().operation] != 0 &&
         completed_[growths_.front().operation] < submitted) {
    durable_size_ = growths_.front().size;
    growths_.erase(growths_.begin());
  }
}

void SimDisk::make_durable(OperationId operation, Range range) {
  if (range.empty()) return;
  for (std::uint64_t number = range.offset / k_sector_bytes; number * k_sector_bytes < range.end();
       ++number) {
    const auto place = index_.find(number / k_block_sectors);
    if (place == index_.end()) continue;
    Sector& sector = blocks_[place->second].sectors[number % k_block_sectors];
    std::uint32_t newer = k_none;
    std::uint32_t at = sector.newest;
    while (at != k_none && versions_[at].operation != operation) {
      newer = at;
      at = versions_[at].older;
    }
    // What a failed barrier took for clean is not written again, and nobody is told a second time.
    if (at != k_none && !versions_[at].lost) settle(sector, at, newer);
  }
  for_each_dirty([](std::uint64_t /*number*/, Sector& /*sector*/) {});
}

void SimDisk::fail_barrier(Chooser& chooser) {
  barrier_failed_ = true;
  for_each_dirty([&](std::uint64_t /*number*/, Sector& sector) {
    if (chooser.chance(50)) return;
    for (std::uint32_t at = sector.newest; at != k_none; at = versions_[at].older) versions_[at].lost = true;
  });
}

void SimDisk::forget_submitter() {
  ++clock_;
  for (OperationId id = 1; id < completed_.size(); ++id) {
    if (completed_[id] == 0) completed_[id] = clock_;
  }
}

void SimDisk::lose_power(PowerLoss& how) {
  std::vector<OperationId> operations;
  std::vector<ContentId> contents;
  for_each_dirty([&](std::uint64_t number, Sector& sector) {
    operations.clear();
    contents.clear();
    for (std::uint32_t at = sector.newest; at != k_none; at = versions_[at].older) {
      operations.push_back(versions_[at].operation);
      contents.push_back(versions_[at].content);
    }
    std::ranges::reverse(operations);
    const std::size_t chosen = how.survivor(number, operations);
    if (chosen > 0) sector.durable = contents[contents.size() - chosen];
    sector.current = sector.durable;
    // Also where it was punched, and that is lost.
    if (sector.durable != ContentId::zeros) block(number / k_block_sectors).room = true;
    sector.newest = k_none;
  });
  versions_.clear();
  barrier_failed_ = false;
  for (const Room& room : fresh_room_) {
    Block& each = blocks_[room.block];
    each.room = std::any_of(std::begin(each.sectors), std::end(each.sectors),
                            [](const Sector& sector) { return sector.durable != ContentId::zeros; });
  }
  fresh_room_.clear();
  if (!growths_.empty()) {
    std::vector<OperationId> by;
    for (const Growth& each : growths_) by.push_back(each.operation);
    const std::size_t chosen = how.survivor(UINT64_MAX, by);
    if (chosen > 0) durable_size_ = growths_[chosen - 1].size;
    growths_.clear();
  }
  size_ = durable_size_;
}

std::vector<OperationId> SimDisk::undurable_operations() const {
  std::vector<OperationId> operations;
  for (const std::uint32_t index : dirty_) {
    for (const Sector& sector : blocks_[index].sectors) {
      for (std::uint32_t at = sector.newest; at != k_none; at = versions_[at].older) {
        operations.push_back(versions_[at].operation);
      }
    }
  }
  for (const Growth& each : growths_) operations.push_back(each.operation);
  std::ranges::sort(operations);
  operations.erase(std::ranges::unique(operations).begin(), operations.end());
  return operations;
}

void SimDisk::put_durable(std::uint64_t at, std::span<const std::byte> data) {
  const OperationId operation = begin();
  put(operation, at, data);
  complete(operation);
  make_durable(operation, {at, data.size()});
}

void SimDisk::flip_bit(std::uint64_t at, unsigned bit) {
  std::byte value{};
  read({at, 1}, {&value, 1});
  value ^= std::byte{1} << (bit % 8);
  put_durable(at, {&value, 1});
}

void SimDisk::misdirect(std::uint64_t from, std::uint64_t to, std::uint64_t length) {
  std::vector<std::byte> data(length);
  read({from, length}, data);
  put_durable(to, data);
}

RandomLoss::RandomLoss(Chooser& chooser, const SimDisk& disk)
    : chooser_(chooser), way_(static_cast<Way>(chooser.below(9))), salt_(chooser.below(UINT64_MAX)) {
  const std::vector<OperationId> operations = disk.undurable_operations();
  if (!operations.empty()) special_ = operations[chooser.below(operations.size())];
}

bool RandomLoss::keeps(OperationId operation) const {
  switch (way_) {
    case Way::only_one:
      return operation == special_;
    case Way::all_but_one:
      return operation != special_;
    case Way::older_than:
      return operation <= special_;
    default:
      return (Random::mix(salt_ ^ operation) & 1) != 0;
  }
}

std::size_t RandomLoss::survivor(std::uint64_t sector, std::span<const OperationId> operations) {
  const std::size_t versions = operations.size() + 1;
  switch (way_) {
    case Way::none:
      return 0;
    case Way::all:
      return operations.size();
    case Way::sectors:
      return chooser_.below(versions);
    case Way::blocks:
      return Random::mix(salt_ ^ (sector / 8)) % versions;
    case Way::torn: {
      // All there, but for one operation, which is torn somewhere.
      const bool torn = operations.back() == special_ && (Random::mix(salt_ ^ sector) & 1) != 0;
      return torn ? operations.size() - 1 : operations.size();
    }
    case Way::operations:
    case Way::only_one:
    case Way::all_but_one:
    case Way::older_than:
      break;
  }
  for (std::size_t i = operations.size(); i > 0; --i) {
    if (keeps(operations[i - 1])) return i;
  }
  return 0;
}

}  // namespace oxbow::sim
