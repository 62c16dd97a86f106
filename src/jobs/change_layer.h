// SPDX-License-Identifier: Apache-2.0
#pragma once

// Changes to a whole layer that nobody serves, by path. It is locked meanwhile; refused while anybody uses it.

#include <cstdint>
#include <string>

#include "os/queue.h"
#include "oxbow/error.h"

namespace oxbow {

// Drops the changes of the layer at `path`, whether it was closed cleanly or not; its base is not looked at. Blocks.
[[nodiscard]] Result<void> reset_layer_file(Queue& queue, const std::string& path);

// Makes the device of the layer at `path` `size_bytes` long. The layer is opened as serving it would, and left clean,
// before. Blocks.
[[nodiscard]] Result<void> grow_layer_file(Queue& queue, const std::string& path, std::uint64_t size_bytes,
                                           bool accept_base);

}  // namespace oxbow
