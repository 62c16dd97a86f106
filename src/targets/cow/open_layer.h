// SPDX-License-Identifier: Apache-2.0
#pragma once

// Layers by path: locks, holder, the chain below, and whether it still is the chain that the layer was made
// over.

#include <memory>
#include <string>

#include "formats/native/layout.h"
#include "targets/cow/cow_target.h"
#include "targets/registry.h"

namespace oxbow {

class FileStore;

// Where a layer's base is: what the layer recorded, seen from the directory that the layer's file, not a link to it,
// is in.
[[nodiscard]] std::string resolve_base_path(const std::string& layer_path, const std::string& recorded);

// Opens the layer at `path` with its whole chain; writable as the context says, everything below read-only.
// The layer is locked (exclusively to write, shared to read), its bases shared. A layer that is open in the
// context already is answered again. Errors: not a layer, damaged, newer, in use (naming the holder), a base
// that is missing, changed, not cleanly closed or another.
[[nodiscard]] Result<std::shared_ptr<CowTarget>> open_layer(OpenContext& context, const std::string& path);

// Opens the base that `superblock`, of a layer whose file is `path`, has recorded, and checks that it still is the
// one; null when the layer has none. `layer` is that file, which is open, or null when it is only being made.
// `depth` is the layer's place in the chain, from 1 on.
[[nodiscard]] Result<std::shared_ptr<Target>> open_base_of(OpenContext& context, const std::string& path,
                                                           const FileIdentity* layer,
                                                           const native::Superblock& superblock,
                                                           unsigned depth);

// A base that a layer is to be made over, checked and described.
struct DescribedBase {
  native::BaseRecord record{};
  std::shared_ptr<FileStore> store;  // raw: keeps the lock
  std::shared_ptr<Target> target;
};
// Opens the base of `kind` at `path` read-only for a new layer with `uuid`. A raw one that carries oxbow's
// magic is refused, and so is a layer that isn't one; a layer that was not closed cleanly is recovered first.
[[nodiscard]] Result<DescribedBase> describe_base(OpenContext& context, const std::string& path,
                                                  native::BaseKind kind, const native::Uuid& uuid);

// `cow PATH [SECTORS]`: a layer from 512-byte sector SECTORS (0) on.
[[nodiscard]] Result<MadeTarget> make_cow_target(OpenContext& context, std::span<const std::string> args,
                                                 std::uint64_t length_bytes);

}  // namespace oxbow
