// SPDX-License-Identifier: Apache-2.0
#pragma once

// Findings of a check in words and as JSON.

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "jobs/finding.h"

namespace oxbow {

// One line without its end. Clusters are told when `cluster_shift` is not 0.
[[nodiscard]] std::string to_text(const Finding& finding, std::uint32_t cluster_shift);
[[nodiscard]] nlohmann::ordered_json to_json(const Finding& finding);

// "bytes 0 to 4095 of the device (cluster 0)".
[[nodiscard]] std::string lost_text(const Range& lost, std::uint32_t cluster_shift);

}  // namespace oxbow
