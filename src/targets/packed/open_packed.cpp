// SPDX-License-Identifier: Apache-2.0
#include "targets/packed/open_packed.h"

#include "stores/open_stores.h"
#include "stores/packed/packed_index.h"
#include "targets/argument.h"
#include "targets/cow/open_layer.h"

namespace oxbow {

bool is_packed(Queue& queue, const std::string& path) {
  const auto file = FileStore::open(path, {});
  if (!file) return false;
  const auto packed = has_packed_magic(queue, **file);
  return packed && *packed;
}

Result<std::shared_ptr<PackedTarget>> open_packed(OpenContext& context, const std::string& path,
                                                  unsigned depth) {
  auto file =
      context.stores.open_file(path, {.writable = false, .direct = context.direct, .lock = LockMode::shared});
  if (!file) return std::unexpected(file.error());
  auto store = PackedStore::open(context.queue, *file);
  if (!store) return std::unexpected(store.error());
  auto base = open_base_of(context, path, &(*file)->identity(),
                           packed::as_superblock((*store)->index().header()), depth);
  if (!base) {
    return std::unexpected(
        Error("cannot open packed layer", path, "its base can't be used: " + base.error().text()));
  }
  return std::make_shared<PackedTarget>(std::move(*store), std::move(*base));
}

Result<MadeTarget> make_packed_target(OpenContext& context, std::span<const std::string> args,
                                      std::uint64_t /*length_bytes*/) {
  const auto offset = offset_in_layer("packed", args);
  if (!offset) return std::unexpected(offset.error());
  auto layer = open_packed(context, args[0]);
  if (!layer) return std::unexpected(layer.error());
  return MadeTarget{.target = *layer, .offset = *offset};
}

}  // namespace oxbow
