// SPDX-License-Identifier: Apache-2.0
#include "crash/job_run.h"

#include <fmt/format.h>

#include "crash/sim_target.h"
#include "jobs/merge_layer.h"
#include "targets/cow/layer_edit.h"
#include "targets/cow/layer_head.h"

namespace oxbow::crash {

using sim::SimStore;

std::string_view name_of(Job job) noexcept {
  return job == Job::reset ? "reset" : job == Job::grow ? "grow" : "merge";
}

JobRun::JobRun(sim::Chooser& chooser, sim::Trace& trace, const Shape& shape, const Disks& disks,
               unsigned pending_percent)
    : disks_(disks), queue_(chooser, trace) {
  const auto add = [&](const std::shared_ptr<sim::SimDisk>& disk, std::string name, bool punches) {
    auto store = std::make_shared<SimStore>(
        queue_, disk,
        SimStore::Options{.name = std::move(name), .pending_percent = pending_percent, .punches = punches});
    store->observe = [this, store = store.get()](const SimStore::Call& call) {
      last_call_ = fmt::format("{} {:#x}+{:#x} of {}", sim::name_of(call.kind), call.range.offset,
                               call.range.length, store->describe());
      if (on_call) on_call(calls_);
    };
    store->fault = [this](const SimStore::Call&) {
      const std::uint64_t number = calls_++;
      return fault ? fault(number) : 0;
    };
    return store;
  };
  if (disks_.base != nullptr) base_ = add(disks_.base, "base", true);
  for (std::size_t i = 0; i < disks_.layers.size(); ++i) {
    stores_.push_back(add(disks_.layers[i], fmt::format("layer{}", i), shape.layers[i].punches));
  }
}

JobRun::~JobRun() = default;

void JobRun::kill() noexcept {
  if (base_ != nullptr) base_->kill();
  for (const auto& store : stores_) store->kill();
}

Result<std::shared_ptr<Target>> JobRun::below(std::size_t number) {
  if (number > 0) return open_layer(number - 1, {});
  if (base_ == nullptr) return nullptr;
  return std::make_shared<SimTarget>(base_, false);
}

Result<std::shared_ptr<CowTarget>> JobRun::open_layer(std::size_t number, CowTarget::Options options) {
  auto lower = below(number);
  if (!lower) return std::unexpected(lower.error());
  return CowTarget::open(queue_, stores_[number], std::move(*lower), options);
}

Result<void> JobRun::clean_top() {
  CowTarget::Options options{.writable = true};
  if (auto chosen = disks_.live->choose(queue_, top(), false, options); !chosen) {
    return std::unexpected(chosen.error());
  }
  auto target = open_layer(stores_.size() - 1, std::move(options));
  if (!target) return std::unexpected(target.error());
  const IoStatus closed = (*target)->close(queue_);
  if (!closed.ok()) return std::unexpected(Error::from_errno("cannot close", "top", closed.error_number()));
  return {};
}

Result<void> JobRun::reset() { return reset_layer(queue_, top()); }

Result<void> JobRun::grow(std::uint64_t size_bytes) {
  if (auto cleaned = clean_top(); !cleaned) return cleaned;
  return grow_layer(queue_, top(), size_bytes);
}

Result<void> JobRun::merge() {
  auto head = read_layer_head(queue_, top());
  if (!head) return std::unexpected(head.error());
  if (!is_merging(head->superblock)) {
    if (auto cleaned = clean_top(); !cleaned) return cleaned;
  }
  auto source = CowTarget::open(queue_, stores_.back(), nullptr, {.writable = false, .merging = true});
  if (!source) return std::unexpected(source.error());
  Device from(*source, Device::Options{.name = "top", .read_only = true}, queue_);
  if (stores_.size() > 1) {
    const std::size_t number = stores_.size() - 2;
    LayerMergeBase base(stores_[number], [this, number] { return open_layer(number, {.writable = true}); });
    return merge_into_base(queue_, top(), from, base, {});
  }
  RawMergeBase base(base_, head->superblock.uuid, [this]() -> Result<native::BaseRecord> {
    native::BaseRecord record{};
    record.kind = native::BaseKind::raw;
    record.size = base_->size();
    return record;
  });
  return merge_into_base(queue_, top(), from, base, {});
}

Result<native::Superblock> superblock_of(const std::shared_ptr<sim::SimDisk>& disk) {
  sim::Random random(1);
  sim::Trace trace;
  sim::SimQueue queue(random, trace);
  SimStore store(queue, disk, {.pending_percent = 0});
  const auto head = read_layer_head(queue, store);
  if (!head) return std::unexpected(head.error());
  return head->superblock;
}

}  // namespace oxbow::crash
