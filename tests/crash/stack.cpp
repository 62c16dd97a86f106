// SPDX-License-Identifier: Apache-2.0
#include "crash/stack.h"

#include <fmt/format.h>

#include "crash/sim_target.h"
#include "stores/blocking.h"
#include "targets/cow/layer_file.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::crash {

using sim::SimDisk;
using sim::SimStore;

Disks Disks::clone() const {
  Disks copy;
  if (base != nullptr) copy.base = std::make_shared<SimDisk>(*base);
  for (const auto& layer : layers) copy.layers.push_back(std::make_shared<SimDisk>(*layer));
  copy.live = live->clone();
  return copy;
}

void Disks::lose_power(sim::Chooser& chooser) {
  drop_caches(chooser);
  live->lose_power();
}

void Disks::drop_caches(sim::Chooser& chooser) {
  const auto lose = [&](SimDisk& disk) {
    sim::RandomLoss loss(chooser, disk);
    disk.lose_power(loss);
  };
  if (base != nullptr) lose(*base);
  for (const auto& layer : layers) lose(*layer);
}

Stack::~Stack() {
  device_.reset();
  top_.reset();
  pair_.reset();
}

std::uint32_t Stack::cluster_shift() const noexcept {
  return pair_ != nullptr ? 10 : top_->superblock().cluster_shift;
}

std::uint64_t Stack::data_offset() const noexcept {
  return pair_ != nullptr ? pair_->head().data_offset : top_->superblock().data_offset;
}

std::shared_ptr<SimStore> Stack::add_store(const std::shared_ptr<SimDisk>& disk, std::string name,
                                           bool writable, bool punches, unsigned pending_percent) {
  auto store = std::make_shared<SimStore>(queue_, disk,
                                          SimStore::Options{.name = std::move(name),
                                                            .writable = writable,
                                                            .pending_percent = pending_percent,
                                                            .punches = punches});
  stores_.push_back(store);
  return store;
}

Result<void> Stack::open(const Disks& disks, bool writable, unsigned pending_percent) {
  auto opened = open_once(disks, writable, pending_percent);
  if (!opened) return std::unexpected(opened.error());
  if (!*opened) return {};
  if (opened = open_once(disks, true, pending_percent); !opened) return std::unexpected(opened.error());
  const IoStatus closed = device_->close(queue_);
  queue_.drain();  // of what nobody waits for
  if (!closed.ok())
    return std::unexpected(Error::from_errno("cannot recover layer", "top", closed.error_number()));
  if (opened = open_once(disks, false, pending_percent); !opened) return std::unexpected(opened.error());
  return {};
}

Result<bool> Stack::open_once(const Disks& disks, bool writable, unsigned pending_percent) {
  device_.reset();
  top_.reset();
  pair_.reset();
  stores_.clear();
  if (shape_.pair && !disks.layers.empty()) {
    const auto opened = open_pair(disks, writable, pending_percent);
    if (!opened) return std::unexpected(opened.error());
    return false;
  }
  std::shared_ptr<Target> below;
  if (disks.base != nullptr) {
    below = std::make_shared<SimTarget>(add_store(disks.base, "base", false, true, pending_percent), false);
  }
  for (std::size_t i = 0; i < disks.layers.size(); ++i) {
    const bool is_top = i + 1 == disks.layers.size();
    CowTarget::Options options{.writable = is_top && writable};
    auto store = add_store(disks.layers[i], fmt::format("layer{}", i), options.writable,
                           shape_.layers[i].punches, pending_percent);
    if (is_top) {
      const auto adopted = disks.live->choose(queue_, *store, shape_.live, options);
      if (!adopted) return std::unexpected(adopted.error());
      if (*adopted && !writable) return true;
    }
    if (shape_.ring) {
      options.ring = store;
      options.ring_growth = {
          .small_flushes = 1, .first_bytes = 32 << 10, .step_bytes = 16 << 10, .most_bytes = 64 << 10};
    }
    auto opened = CowTarget::open(queue_, store, below, options);
    if (!opened && is_top && !writable && opened.error().why() == k_needs_recovery_reason) return true;
    if (!opened) return std::unexpected(opened.error());
    if (below != nullptr && (*opened)->superblock().base_visible > below->size()) {
      return std::unexpected(Error("cannot open layer", store->describe(), "its base is too short"));
    }
    top_ = std::move(*opened);
    below = top_;
  }
  make_device(below, writable);
  return false;
}

void Stack::make_device(std::shared_ptr<Target> target, bool writable) {
  device_ = std::make_unique<Device>(
      std::move(target),
      Device::Options{.name = "sim", .read_only = !writable, .on_full = OnFull::pause, .log = &pauses_},
      queue_);
}

Result<void> Stack::open_pair(const Disks& disks, bool writable, unsigned pending_percent) {
  auto base = add_store(disks.base, "base", false, true, pending_percent);
  auto cowfile =
      add_store(disks.layers.front(), "cowfile", writable, shape_.layers.front().punches, pending_percent);
  CowloopTarget::Options options{.writable = writable};
  if (auto chosen = disks.live->choose(queue_, *cowfile, shape_.live, options); !chosen) return chosen;
  auto opened = CowloopTarget::open(queue_, std::move(cowfile), std::move(base), std::move(options));
  if (!opened) return std::unexpected(opened.error());
  pair_ = std::move(*opened);
  make_device(pair_, writable);
  return {};
}

Result<void> Stack::format_pair(const Disks& disks, SimStore& store) {
  auto base = add_store(disks.base, "base", false, true, shape_.pending_percent);
  const auto fingerprint = cowloop::fingerprint_of(queue_, "cannot create cowfile", *base);
  if (!fingerprint) return std::unexpected(fingerprint.error());
  const auto layout = shape_.narrow ? cowloop::Layout::bytes_4 : cowloop::Layout::bytes_8;
  const auto head =
      cowloop::fresh_head(layout, cowloop::blocks_of(shape_.layers.front().size_bytes), *fingerprint);
  if (auto written = cowloop::write_fresh(queue_, "cannot create cowfile", store, head); !written)
    return written;
  const IoStatus synced = sync_blocking(queue_, store);
  if (synced.ok()) return {};
  return std::unexpected(Error::from_errno("cannot create cowfile", "new", synced.error_number()));
}

Result<void> Stack::format(const Disks& disks, const std::shared_ptr<SimDisk>& disk, std::uint64_t salt) {
  const std::size_t number = disks.layers.size();
  const LayerShape& shape = shape_.layers[number];
  if (shape_.pair)
    return format_pair(disks, *add_store(disk, "new", true, shape.punches, shape_.pending_percent));
  LayerDescription description;
  description.size_bytes = shape.size_bytes;
  description.cluster_shift = shape.cluster_shift;
  description.max_size_bytes = shape.size_bytes + k_room_to_grow_bytes;
  description.salt = salt;
  description.uuid[0] = static_cast<std::uint8_t>(number + 1);
  if (number > 0) {
    description.base.kind = native::BaseKind::layer;
    description.base.size = shape_.layers[number - 1].size_bytes;
  } else if (disks.base != nullptr) {
    description.base.kind = native::BaseKind::raw;
    description.base.size = shape_.base_bytes;
  }
  if (description.base.kind != native::BaseKind::none) description.base_path = "below";
  auto store = add_store(disk, fmt::format("new{}", number), true, shape.punches, shape_.pending_percent);
  return format_layer(queue_, *store, description);
}

void Stack::kill() noexcept {
  for (const auto& store : stores_) store->kill();
}

}  // namespace oxbow::crash
