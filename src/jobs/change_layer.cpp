// SPDX-License-Identifier: Apache-2.0
#include "jobs/change_layer.h"

#include "stores/open_stores.h"
#include "targets/cow/holder.h"
#include "targets/cow/layer_edit.h"
#include "targets/cow/layer_head.h"
#include "targets/cow/open_layer.h"
#include "targets/registry.h"

namespace oxbow {
namespace {

Result<std::shared_ptr<FileStore>> take(Queue& queue, OpenStores& stores, const std::string& path) {
  return open_when_let_go(
      queue, path, [&] { return stores.open_file(path, {.writable = true, .lock = LockMode::exclusive}); });
}

}  // namespace

Result<void> reset_layer_file(Queue& queue, const std::string& path) {
  OpenStores stores;
  const auto store = take(queue, stores, path);
  if (!store) return std::unexpected(store.error());
  auto head = read_layer_head(queue, **store);
  LeftLive left;
  if (head && head->superblock.state == native::LayerState::in_use) {
    // Of no use any more, whatever it says.
    if (auto found = find_left_live(path, head->superblock, (*store)->identity(), /*discard=*/true))
      left = std::move(*found);
    (*store)->drop_cache();
  }
  if (auto reset = reset_layer(queue, **store); !reset) return reset;
  if (left.file != nullptr) left.file->remove();
  return {};
}

Result<void> grow_layer_file(Queue& queue, const std::string& path, std::uint64_t size_bytes,
                             bool accept_base) {
  OpenStores stores;
  const auto store = take(queue, stores, path);
  if (!store) return std::unexpected(store.error());
  OpenContext context{queue, stores, true};
  context.accept_base = accept_base;
  auto target = open_layer(context, path);
  if (!target) return std::unexpected(target.error());
  const IoStatus closed = (*target)->close(queue);
  if (!closed.ok())
    return std::unexpected(Error::from_errno("cannot close layer", path, closed.error_number()));
  target->reset();
  return grow_layer(queue, **store, size_bytes);
}

}  // namespace oxbow
