// SPDX-License-Identifier: Apache-2.0
#pragma once

// What changes a layer as a whole. The caller has the layer's file to itself, opened for writing, with no target on
// it; all of it blocks. A crash on the way leaves the layer as it was or as it is to be (docs/durability.md has the
// order of each).

#include <cstdint>

#include "formats/native/layout.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow {

// Drops all of the layer's changes, so that its base shows again; its own metadata need not be sound for that, and it
// need not have been closed cleanly. It takes as long as giving back the room of what was written takes. Layers over
// this one refuse it from then on. Refused while a merge is unfinished.
[[nodiscard]] Result<void> reset_layer(Queue& queue, Store& layer);

// Makes the device of a clean layer `size_bytes` long. What is new reads as zeros. Nothing is done when it has that
// size already. Refused: a size below its present one or above its max_size.
[[nodiscard]] Result<void> grow_layer(Queue& queue, Store& layer, std::uint64_t size_bytes);

// From now on only a merge may open the layer, which is clean. Nothing is done when that is so already.
[[nodiscard]] Result<void> begin_merge(Queue& queue, Store& layer);
// What the layer changed is durable in its base, which is `base` now: the layer has no changes any more.
[[nodiscard]] Result<void> end_merge(Queue& queue, Store& layer, const native::BaseRecord& base);

// Whether a merge of the layer into its base was begun and not finished.
[[nodiscard]] constexpr bool is_merging(const native::Superblock& superblock) noexcept {
  return (superblock.incompatible & native::k_incompatible_merging) != 0;
}
// Why a layer that is_merging() is refused by everybody but a merge.
inline constexpr const char* k_merging_reason =
    "a merge into its base was begun and is not finished: resume it with oxbow merge";

}  // namespace oxbow
