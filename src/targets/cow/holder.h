// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow {

// Writes this process into the layer's holder block, for those who are refused meanwhile. Blocking.
[[nodiscard]] Result<void> write_holder(Queue& queue, Store& layer, std::uint64_t at);

// The refusal of a layer that another process has locked, naming the holder that it recorded. Blocking.
[[nodiscard]] Error in_use_error(Queue& queue, const std::string& path);

}  // namespace oxbow
