// SPDX-License-Identifier: Apache-2.0
#include "jobs/merge_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "formats/native/codec.h"
#include "jobs/map_device.h"
#include "os/canary.h"
#include "stores/blocking.h"
#include "stores/open_stores.h"
#include "targets/cow/holder.h"
#include "targets/cow/layer_edit.h"
#include "targets/cow/layer_file.h"
#include "targets/cow/layer_head.h"
#include "targets/cow/open_layer.h"
#include "targets/registry.h"

namespace oxbow {
namespace {

constexpr const char* k_what = "cannot merge layer";
// Read with one call, gaps of what isn't the layer's included; and written with one where there are none.
constexpr std::uint64_t k_window_bytes = 4 << 20;
constexpr std::uint64_t k_gap_bytes = 64 << 10;

// Copies what belongs to a layer itself, in order. Thread safety: none.
class Copier {
 public:
  Copier(Queue& queue, Store& layer, Device& into, const JobProgress& progress, std::uint64_t total)
      : queue_(queue), layer_(layer), into_(into), progress_(progress), total_(total) {}

  [[nodiscard]] Result<void> add(const MappedExtent& extent) {
    if (extent.layer != 0) return {};
    if (extent.kind == Kind::error) {
      return std::unexpected(failed("reading", layer_, extent.range, static_cast<int>(extent.at)));
    }
    Range rest = extent.range;
    while (!rest.empty()) {
      const Range piece = rest.prefix(k_window_bytes);
      const std::uint64_t at = extent.at + (piece.offset - extent.range.offset);
      if (auto added = extent.kind == Kind::zero ? zero(piece) : add_data(piece, at); !added) return added;
      rest = rest.without_prefix(piece.length);
    }
    return {};
  }
  // What is gathered.
  [[nodiscard]] Result<void> flush() {
    if (pieces_.empty()) return {};
    const Range first = pieces_.front();
    buffer_.resize(pieces_.back().end() - first.offset);
    const IoStatus read = read_blocking(queue_, layer_, first_at_, buffer_);
    if (!read.ok())
      return std::unexpected(failed("reading", layer_, {first.offset, buffer_.size()}, read.error_number()));
    for (const Range& piece : pieces_) {
      const std::span<const std::byte> data =
          std::span(buffer_).subspan(piece.offset - first.offset, piece.length);
      const IoStatus written = run_blocking(
          queue_, [&](Io& io) { return into_.write(io, piece.offset, data, Durability::with_flush); });
      if (!written.ok()) return std::unexpected(failed("writing", into_, piece, written.error_number()));
      advance(piece.length);
    }
    pieces_.clear();
    return {};
  }

 private:
  [[nodiscard]] Result<void> add_data(Range piece, std::uint64_t at) {
    if (!pieces_.empty()) {
      const bool near = piece.offset - pieces_.back().end() <= k_gap_bytes;
      const bool fits = piece.end() - pieces_.front().offset <= k_window_bytes;
      // Clusters lie in the layer as they lie in the device, so what is between two of them can be read along.
      const bool alike = at - first_at_ == piece.offset - pieces_.front().offset;
      if (!near || !fits || !alike) {
        if (auto flushed = flush(); !flushed) return flushed;
      }
    }
    if (pieces_.empty()) first_at_ = at;
    if (!pieces_.empty() && pieces_.back().end() == piece.offset) {
      pieces_.back().length += piece.length;
    } else {
      pieces_.push_back(piece);
    }
    return {};
  }
  [[nodiscard]] Result<void> zero(Range piece) {
    const IoStatus zeroed = run_blocking(
        queue_, [&](Io& io) { return into_.zero(io, piece, /*allocate=*/false, Durability::with_flush); });
    if (!zeroed.ok()) return std::unexpected(failed("zeroing", into_, piece, zeroed.error_number()));
    advance(piece.length);
    return {};
  }
  void advance(std::uint64_t bytes) {
    done_ += bytes;
    if (progress_) progress_(done_, total_);
  }
  [[nodiscard]] static Error failed(const char* doing, const auto& where, Range range, int number) {
    const Error reason = Error::from_errno("", "", number);
    return {k_what, name_of(where),
            fmt::format("{} bytes {} to {}: {}", doing, range.offset, range.end() - 1, reason.why())};
  }
  [[nodiscard]] static std::string name_of(const Store& store) { return store.describe(); }
  [[nodiscard]] static std::string name_of(const Device& device) { return device.name(); }

  Queue& queue_;
  Store& layer_;
  Device& into_;
  const JobProgress& progress_;
  const std::uint64_t total_;
  std::uint64_t done_ = 0;
  std::vector<Range> pieces_;   // of the device, to be written with the next flush(); in order
  std::uint64_t first_at_ = 0;  // where the first of them lies in the layer's file
  std::vector<std::byte> buffer_;
};

Result<void> copy_changes(Queue& queue, Store& layer, Device& from, Device& into, const JobProgress& progress,
                          const LayerChanges& changes) {
  Copier copier(queue, layer, into, progress, changes.data_bytes + changes.zero_bytes);
  auto copied = map_device(queue, from, [&](const MappedExtent& extent) { return copier.add(extent); });
  return copied ? copier.flush() : copied;
}

}  // namespace

Result<LayerChanges> count_changes(Queue& queue, Device& from) {
  LayerChanges changes;
  const auto counted = map_device(queue, from, [&](const MappedExtent& extent) -> Result<void> {
    if (extent.layer != 0) return {};
    if (extent.kind == Kind::error) {
      return std::unexpected(Error(
          k_what, from.name(),
          fmt::format("bytes {} to {} of it cannot be read, its metadata is damaged: oxbow check names it",
                      extent.range.offset, extent.range.end() - 1)));
    }
    (extent.kind == Kind::zero ? changes.zero_bytes : changes.data_bytes) += extent.range.length;
    return {};
  });
  if (!counted) return std::unexpected(counted.error());
  return changes;
}

Result<void> merge_into_base(Queue& queue, Store& layer, Device& from, MergeBase& base,
                             const JobProgress& progress) {
  // What can't be read is found before anything is changed.
  const auto changes = count_changes(queue, from);
  if (!changes) return std::unexpected(changes.error());
  if (auto begun = begin_merge(queue, layer); !begun) return begun;
  const auto into = base.open(queue, from.size());
  if (!into) return std::unexpected(into.error());
  if (auto copied = copy_changes(queue, layer, from, **into, progress, *changes); !copied) return copied;
  if (!canary(Canary::merge_ends_early)) {
    if (auto finished = base.finish(queue); !finished) return finished;
  }
  const auto described = base.describe(queue);
  if (!described) return std::unexpected(described.error());
  if (auto ended = end_merge(queue, layer, *described); !ended) return ended;
  return canary(Canary::merge_ends_early) ? base.finish(queue) : Result<void>{};
}

struct Merge::Parts {
  Parts(Queue& own_queue, std::string layer_path) : queue(own_queue), path(std::move(layer_path)) {}

  [[nodiscard]] Result<void> take_layer();
  [[nodiscard]] Result<void> clean_layer(bool accept_base);
  [[nodiscard]] Result<void> take_base(bool accept_base);
  [[nodiscard]] Result<void> take_raw_base(bool accept_base);
  [[nodiscard]] Result<void> take_layer_base();
  [[nodiscard]] Result<void> open_source();

  [[nodiscard]] std::unexpected<Error> refuse(std::string why) const {
    return std::unexpected(Error(k_what, path, std::move(why)));
  }
  [[nodiscard]] std::unexpected<Error> refuse_base(const std::string& why) const {
    return refuse(fmt::format("its base {} can't be merged into: {}", outlook.base, why));
  }
  [[nodiscard]] OpenContext context() { return {queue, stores, true}; }
  // Why `found` is not the base to write into: that of the layer, or one that a merge which was cut off has changed.
  [[nodiscard]] std::string difference(const native::BaseRecord& found, bool accept_base) const;

  Queue& queue;
  const std::string path;
  OpenStores stores;
  MergeOutlook outlook;
  std::shared_ptr<FileStore> layer;
  native::Superblock superblock{};
  std::shared_ptr<FileStore> base_file;
  std::unique_ptr<MergeBase> base;
  std::unique_ptr<Device> from;
};

Result<void> Merge::Parts::take_layer() {
  auto store = stores.open_file(path, {.writable = true, .lock = LockMode::exclusive});
  if (!store)
    return std::unexpected(store.error().why() == k_in_use_reason ? in_use_error(queue, path)
                                                                  : store.error());
  layer = std::move(*store);
  const auto head = read_layer_head(queue, *layer);
  if (!head) return std::unexpected(head.error());
  superblock = head->superblock;
  if (superblock.base.kind == native::BaseKind::none) return refuse("it has no base");
  outlook.resumed = is_merging(superblock);
  outlook.base = resolve_base_path(path, native::base_path(superblock));
  outlook.base_is_layer = superblock.base.kind == native::BaseKind::layer;
  outlook.device_bytes = superblock.size;
  return {};
}

// As serving it would open and close it; its lock stays.
Result<void> Merge::Parts::clean_layer(bool accept_base) {
  OpenContext opening = context();
  opening.accept_base = accept_base;
  auto target = open_layer(opening, path);
  if (!target) return std::unexpected(target.error());
  const IoStatus closed = (*target)->close(queue);
  if (!closed.ok())
    return std::unexpected(Error::from_errno("cannot close layer", path, closed.error_number()));
  return {};
}

std::string Merge::Parts::difference(const native::BaseRecord& found, bool accept_base) const {
  if (!outlook.resumed) return base_difference(superblock.base, found, accept_base);
  if (found.size != superblock.base.size && found.size != superblock.size) {
    return fmt::format("the merge was begun with a base of {} bytes, this one has {}", superblock.base.size,
                       found.size);
  }
  if (outlook.base_is_layer && found.uuid != superblock.base.uuid) {
    return fmt::format("the merge was begun with layer {}, this one is {}",
                       native::to_text(superblock.base.uuid), native::to_text(found.uuid));
  }
  return {};
}

Result<void> Merge::Parts::take_raw_base(bool accept_base) {
  auto store = stores.open_file(outlook.base, {.writable = true, .lock = LockMode::exclusive});
  if (!store) return refuse_base(store.error().why());
  base_file = std::move(*store);
  const auto identify = [file = base_file]() -> Result<native::BaseRecord> {
    const auto identity = file->durable_identity();
    if (!identity) return std::unexpected(identity.error());
    return base_record(*identity);
  };
  auto raw = std::make_unique<RawMergeBase>(base_file, superblock.uuid, identify);
  const auto found = raw->describe(queue);
  if (!found) return std::unexpected(found.error());
  if (auto why = difference(*found, accept_base); !why.empty()) return refuse_base(why);
  outlook.base_bytes = found->size;
  base = std::move(raw);
  return {};
}

Result<void> Merge::Parts::take_layer_base() {
  auto store = stores.open_file(outlook.base, {.writable = true, .lock = LockMode::exclusive});
  if (!store) {
    return refuse_base(store.error().why() == k_in_use_reason ? in_use_error(queue, outlook.base).why()
                                                              : store.error().why());
  }
  base_file = std::move(*store);
  const auto head = read_layer_head(queue, *base_file);
  if (!head) return refuse_base(head.error().why());
  if (auto why = difference(base_record(head->superblock), false); !why.empty()) return refuse_base(why);
  if (is_merging(head->superblock)) return refuse_base(k_merging_reason);
  if (!outlook.resumed && head->superblock.state != native::LayerState::clean) {
    return refuse_base("it was not closed cleanly, so what it holds isn't settled");
  }
  outlook.base_bytes = head->superblock.size;
  if (head->superblock.max_size < outlook.device_bytes) {
    return refuse_base(fmt::format("it would have to be extended to {} bytes, more than its max_size {}",
                                   outlook.device_bytes, head->superblock.max_size));
  }
  base = std::make_unique<LayerMergeBase>(base_file, [this] {
    OpenContext opening = context();
    return open_layer(opening, outlook.base);
  });
  return {};
}

Result<void> Merge::Parts::take_base(bool accept_base) {
  if (outlook.base_is_layer) return take_layer_base();
  if (auto taken = take_raw_base(accept_base); !taken) return taken;
  if (outlook.base_bytes >= outlook.device_bytes || !base_file->identity().block_device) return {};
  return refuse_base(
      fmt::format("the layer's device has {} bytes, and a block device of {} can't be extended",
                  outlook.device_bytes, outlook.base_bytes));
}

// What is absent isn't asked for, so the base is not needed.
Result<void> Merge::Parts::open_source() {
  auto target = CowTarget::open(queue, layer, nullptr, {.writable = false, .merging = true});
  if (!target) return std::unexpected(target.error());
  from =
      std::make_unique<Device>(std::move(*target), Device::Options{.name = path, .read_only = true}, queue);
  const auto changes = count_changes(queue, *from);
  if (!changes) return std::unexpected(changes.error());
  outlook.changes = *changes;
  return {};
}

Merge::Merge(std::unique_ptr<Parts> parts) noexcept : parts_(std::move(parts)) {}
Merge::~Merge() = default;

Result<std::unique_ptr<Merge>> Merge::open(Queue& queue, const std::string& path, bool accept_base) {
  auto parts = std::make_unique<Parts>(queue, path);
  if (auto taken = parts->take_layer(); !taken) return std::unexpected(taken.error());
  // One whose merge was begun is clean.
  auto held = parts->outlook.resumed ? write_holder(queue, *parts->layer, parts->superblock.holder_offset)
                                     : parts->clean_layer(accept_base);
  if (!held) return std::unexpected(held.error());
  if (auto taken = parts->take_base(accept_base); !taken) return std::unexpected(taken.error());
  if (auto opened = parts->open_source(); !opened) return std::unexpected(opened.error());
  return std::unique_ptr<Merge>(new Merge(std::move(parts)));
}

const MergeOutlook& Merge::outlook() const noexcept { return parts_->outlook; }

Result<void> Merge::run(const JobProgress& progress) {
  return merge_into_base(parts_->queue, *parts_->layer, *parts_->from, *parts_->base, progress);
}

}  // namespace oxbow
