// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "control/served.h"
#include "os/queue.h"
#include "oxbow/error.h"

namespace oxbow::control {

// A part of what the device is made of, from byte `start` on: "extents", whole ones and not more than make an answer of
// bearable size, and "next", where the rest begins, null when there is none. Blocks; `queue` is the calling thread's.
[[nodiscard]] Result<nlohmann::ordered_json> describe_map(Queue& queue, const ServedDevice& device,
                                                          std::uint64_t start);

}  // namespace oxbow::control
