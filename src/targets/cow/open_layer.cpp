// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/open_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "formats/native/codec.h"
#include "os/process_info.h"
#include "os/queue.h"
#include "stores/open_stores.h"
#include "stores/packed/packed_index.h"
#include "targets/argument.h"
#include "targets/cow/holder.h"
#include "targets/cow/layer_edit.h"
#include "targets/cow/layer_file.h"
#include "targets/linear/linear_target.h"
#include "targets/packed/open_packed.h"

namespace oxbow {
namespace {

using native::BaseKind;
using native::BaseRecord;

constexpr unsigned k_deepest_chain = 64;

Error cannot_open(const std::string& path, std::string why) {
  return {"cannot open layer", path, std::move(why)};
}

Result<std::shared_ptr<FileStore>> open_raw(OpenContext& context, const std::string& path) {
  return context.stores.open_file(path,
                                  {.writable = false, .direct = context.direct, .lock = LockMode::shared});
}

std::shared_ptr<Target> raw_target(const std::shared_ptr<FileStore>& store) {
  return std::make_shared<LinearTarget>(store, store->path(), Range{0, store->size()}, false);
}

Result<std::shared_ptr<CowTarget>> open_at_depth(OpenContext& context, const std::string& path, bool writable,
                                                 unsigned depth);
// Opens a layer to write and closes it, which leaves it clean.
Result<void> recover(OpenContext& context, const std::string& path) {
  auto layer = open_at_depth(context, path, true, 1);
  if (!layer) return std::unexpected(layer.error());
  const IoStatus closed = (*layer)->close(context.queue);
  if (closed.ok()) return {};
  return std::unexpected(Error::from_errno("cannot recover layer", path, closed.error_number()));
}

// A layer to be read whose last writes only the live state has: it is made clean first, which takes writing.
Result<std::shared_ptr<CowTarget>> open_recovered(OpenContext& context, const std::string& path) {
  if (auto recovered = recover(context, path); !recovered) {
    return std::unexpected(cannot_open(
        path,
        "it was not closed cleanly and has to be recovered before it is read: " + recovered.error().text()));
  }
  return open_at_depth(context, path, false, 1);
}

Result<std::shared_ptr<Target>> open_raw_base(OpenContext& context, const std::string& path,
                                              const native::Superblock& superblock) {
  auto store = open_raw(context, path);
  if (!store) return std::unexpected(store.error());
  BaseRecord found = base_record((*store)->identity());
  if (found.size == superblock.base.size) {
    auto samples = sample_base(context.queue, **store, superblock.uuid);
    if (!samples) return std::unexpected(samples.error());
    found.samples = *samples;
  }
  if (auto why = base_difference(superblock.base, found, context.accept_base); !why.empty()) {
    return std::unexpected(Error("wrong base", path, std::move(why)));
  }
  return raw_target(*store);
}

Result<std::shared_ptr<Target>> open_packed_base(OpenContext& context, const std::string& path,
                                                 const native::Superblock& superblock, unsigned depth) {
  auto layer = open_packed(context, path, depth + 1);
  if (!layer) return std::unexpected(layer.error());
  const BaseRecord found = base_record(packed::as_superblock((*layer)->header()));
  if (auto why = base_difference(superblock.base, found, context.accept_base); !why.empty()) {
    return std::unexpected(Error("wrong base", path, std::move(why)));
  }
  return *layer;
}

Result<std::shared_ptr<Target>> open_base(OpenContext& context, const std::string& layer_path,
                                          const FileIdentity* above, const native::Superblock& superblock,
                                          unsigned depth) {
  if (superblock.base.kind == BaseKind::none) return nullptr;
  const std::string path = resolve_base_path(layer_path, native::base_path(superblock));
  const auto admitted = admit_base(context.bases, layer_path, above, path);
  if (!admitted) return std::unexpected(admitted.error());
  // Held while it is opened below, so that what is opened is what was admitted. Why it can't be, is told there.
  const auto held = open_raw(context, path);
  if (held && !admitted->is((*held)->identity()))
    return std::unexpected(Error("cannot open file", path, "it was replaced while it was opened"));
  if (superblock.base.kind == BaseKind::raw) return open_raw_base(context, path, superblock);
  if (is_packed(context.queue, path)) return open_packed_base(context, path, superblock, depth);
  auto layer = open_at_depth(context, path, false, depth + 1);
  if (!layer) return std::unexpected(layer.error());
  const native::Superblock& base = (*layer)->superblock();
  if (auto why = base_difference(superblock.base, base_record(base), context.accept_base); !why.empty()) {
    return std::unexpected(Error("wrong base", path, std::move(why)));
  }
  if (base.state != native::LayerState::clean) {
    return std::unexpected(
        Error("wrong base", path, "it was not closed cleanly, so what it holds isn't settled"));
  }
  return *layer;
}

// What the commit ring is written with: past the page cache, where durable writes cost least. Where the file system
// has no direct I/O the layer's own store does it as well.
std::shared_ptr<Store> open_ring(const std::shared_ptr<FileStore>& layer) {
  if (layer->direct()) return layer;
  // The flusher's thread writes records. For an io_uring the kernel would wake another one for each, which on a busy
  // machine gets its turn a tick later.
  auto ring = FileStore::open(layer->path(), {.writable = true, .direct = true, .durable_blocks = true});
  if (!ring || !(*ring)->identity().same_file(layer->identity())) return layer;
  return *ring;
}

Result<std::shared_ptr<CowTarget>> open_at_depth(OpenContext& context, const std::string& path, bool writable,
                                                 unsigned depth) {
  if (depth > k_deepest_chain) {
    return std::unexpected(
        cannot_open(path, fmt::format("its chain is deeper than {} layers", k_deepest_chain)));
  }
  auto store = open_when_let_go(context.queue, path, [&] {
    return context.stores.open_file(path, {.writable = writable,
                                           .direct = context.direct,
                                           .reserve_bytes = context.reserve_bytes,
                                           .lock = writable ? LockMode::exclusive : LockMode::shared});
  });
  if (!store) return std::unexpected(store.error());
  const auto known = context.layers.find(store->get());
  if (known != context.layers.end()) {
    if (auto layer = known->second.lock()) return layer;
  }
  if ((*store)->identity().block_device) {
    return std::unexpected(cannot_open(path, "a layer is a regular file, this is a block device"));
  }
  auto head = read_layer_head(context.queue, **store);
  LeftLive left;
  if (head && head->superblock.state == native::LayerState::in_use && (writable || depth == 1)) {
    auto found = find_left_live(path, head->superblock, (*store)->identity(), context.live.discard);
    if (!found) return std::unexpected(found.error());
    left = std::move(*found);
  }
  if (left.adopt && !writable) {
    store->reset();
    return open_recovered(context, path);
  }
  if (head && head->superblock.state == native::LayerState::in_use && !left.adopt) {
    // The end before may have been a failed barrier; what counts is what the medium has.
    (*store)->drop_cache();
    head = read_layer_head(context.queue, **store);
  }
  if (!head) return std::unexpected(head.error());
  // Before its base is looked at, which is neither the old one nor the new one.
  if (is_merging(head->superblock)) return std::unexpected(cannot_open(path, k_merging_reason));
  auto base = open_base(context, path, &(*store)->identity(), head->superblock, depth);
  if (!base) {
    return std::unexpected(cannot_open(path, "its base can't be used: " + base.error().text()));
  }
  CowTarget::Options options{.writable = writable};
  if (writable) {
    if (context.ring) options.ring = open_ring(*store);
    LiveChoice live = choose_live(context.live, head->superblock, (*store)->identity(), std::move(left));
    options.boot_id = live.boot_id;
    options.live = std::move(live.live);
    options.adopt = live.adopt;
    options.retired = std::move(live.retired);
    options.without_live = std::move(live.why_none);
  }
  auto layer = CowTarget::open(context.queue, *store, *base, std::move(options));
  if (!layer && depth == 1 && layer.error().why() == k_needs_recovery_reason) {
    store->reset();
    base->reset();
    return open_recovered(context, path);
  }
  if (!layer) return layer;
  if (writable) {
    if (auto noted = write_holder(context.queue, **store, head->superblock.holder_offset); !noted) {
      return std::unexpected(noted.error());
    }
  }
  context.layers[store->get()] = *layer;
  return layer;
}

}  // namespace

std::string resolve_base_path(const std::string& layer_path, const std::string& recorded) {
  std::error_code error;
  const std::filesystem::path real = std::filesystem::canonical(layer_path, error);
  const std::filesystem::path layer = error ? std::filesystem::path(layer_path) : real;
  return (layer.parent_path() / recorded).lexically_normal().string();
}

Result<std::shared_ptr<Target>> open_base_of(OpenContext& context, const std::string& path,
                                             const FileIdentity* layer, const native::Superblock& superblock,
                                             unsigned depth) {
  if (depth > k_deepest_chain) {
    return std::unexpected(
        cannot_open(path, fmt::format("its chain is deeper than {} layers", k_deepest_chain)));
  }
  return open_base(context, path, layer, superblock, depth);
}

Result<std::shared_ptr<CowTarget>> open_layer(OpenContext& context, const std::string& path) {
  return open_at_depth(context, path, context.writable, 1);
}

namespace {

Result<DescribedBase> describe_layer_base(OpenContext& context, const std::string& path) {
  if (is_packed(context.queue, path)) {
    auto packed_layer = open_packed(context, path);
    if (!packed_layer) return std::unexpected(packed_layer.error());
    return DescribedBase{.record = base_record(packed::as_superblock((*packed_layer)->header())),
                         .store = nullptr,
                         .target = *packed_layer};
  }
  auto layer = open_at_depth(context, path, false, 1);
  if (!layer) return std::unexpected(layer.error());
  if ((*layer)->superblock().state != native::LayerState::clean) {
    layer->reset();
    if (auto recovered = recover(context, path); !recovered) return std::unexpected(recovered.error());
    layer = open_at_depth(context, path, false, 1);
    if (!layer) return std::unexpected(layer.error());
  }
  return DescribedBase{.record = base_record((*layer)->superblock()), .store = nullptr, .target = *layer};
}

}  // namespace

Result<DescribedBase> describe_base(OpenContext& context, const std::string& path, BaseKind kind,
                                    const native::Uuid& uuid) {
  if (kind == BaseKind::layer) return describe_layer_base(context, path);
  auto store = open_raw(context, path);
  if (!store) return std::unexpected(store.error());
  const auto layer = has_layer_magic(context.queue, **store);
  if (!layer) return std::unexpected(layer.error());
  const auto packed_layer = has_packed_magic(context.queue, **store);
  if (!packed_layer) return std::unexpected(packed_layer.error());
  if (*layer || *packed_layer) {
    return std::unexpected(Error("cannot use base", path,
                                 "it is an oxbow layer, but was given as a raw image: --base-format oxb"));
  }
  BaseRecord record = base_record((*store)->identity());
  auto samples = sample_base(context.queue, **store, uuid);
  if (!samples) return std::unexpected(samples.error());
  record.samples = *samples;
  return DescribedBase{.record = record, .store = *store, .target = raw_target(*store)};
}

Result<MadeTarget> make_cow_target(OpenContext& context, std::span<const std::string> args,
                                   std::uint64_t /*length_bytes*/) {
  const auto offset = offset_in_layer("cow", args);
  if (!offset) return std::unexpected(offset.error());
  auto layer = open_layer(context, args[0]);
  if (!layer) return std::unexpected(layer.error());
  return MadeTarget{.target = *layer, .offset = *offset};
}

}  // namespace oxbow
