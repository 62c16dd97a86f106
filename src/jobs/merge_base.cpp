// SPDX-License-Identifier: Apache-2.0
#include "jobs/merge_base.h"

#include "targets/cow/layer_edit.h"
#include "targets/cow/layer_file.h"
#include "targets/cow/layer_head.h"
#include "targets/linear/linear_target.h"

namespace oxbow {
namespace {

Result<void> outcome(const Store& base, IoStatus status) {
  if (status.ok()) return {};
  return std::unexpected(Error::from_errno("cannot write base", base.describe(), status.error_number()));
}

}  // namespace

Result<Device*> RawMergeBase::open(Queue& queue, std::uint64_t size_bytes) {
  if (store_->size() < size_bytes) {
    const IoStatus grown = run_blocking(queue, [&](Io& io) { return store_->grow(io, size_bytes); });
    if (!grown.ok()) {
      return std::unexpected(
          Error::from_errno("cannot extend base", store_->describe(), grown.error_number()));
    }
  }
  auto target =
      std::make_shared<LinearTarget>(store_, store_->describe(), Range{0, store_->size()}, /*writable=*/true);
  device_ = std::make_unique<Device>(std::move(target), Device::Options{.name = store_->describe()}, queue);
  return device_.get();
}

Result<void> RawMergeBase::finish(Queue& queue) {
  return outcome(*store_, run_blocking(queue, [&](Io& io) { return device_->flush(io); }));
}

Result<native::BaseRecord> RawMergeBase::describe(Queue& queue) {
  auto record = identify_();
  if (!record) return record;
  auto samples = sample_base(queue, *store_, uuid_);
  if (!samples) return std::unexpected(samples.error());
  record->samples = *samples;
  return record;
}

Result<Device*> LayerMergeBase::open(Queue& queue, std::uint64_t size_bytes) {
  auto target = open_();
  if (!target) return std::unexpected(target.error());
  if ((*target)->size() < size_bytes) {
    // Only a layer that is clean and closed can grow.
    if (auto closed = outcome(*store_, (*target)->close(queue)); !closed)
      return std::unexpected(closed.error());
    target->reset();
    if (auto grown = grow_layer(queue, *store_, size_bytes); !grown) return std::unexpected(grown.error());
    target = open_();
    if (!target) return std::unexpected(target.error());
  }
  device_ = std::make_unique<Device>(*target, Device::Options{.name = store_->describe()}, queue);
  return device_.get();
}

Result<void> LayerMergeBase::finish(Queue& queue) {
  const auto closed = outcome(*store_, device_->close(queue));
  device_.reset();
  return closed;
}

Result<native::BaseRecord> LayerMergeBase::describe(Queue& queue) {
  const auto head = read_layer_head(queue, *store_);
  if (!head) return std::unexpected(head.error());
  return base_record(head->superblock);
}

}  // namespace oxbow
