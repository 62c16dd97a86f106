// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "control/registry.h"
#include "oxbow/error.h"

namespace oxbow {

// Takes the block devices of the device `name`, which `process` serves, away; with `force` also while they are in use.
// Where that ends the process, returns when it has ended.
[[nodiscard]] Result<void> detach_served(const control::Record& process, const std::string& name, bool force);

}  // namespace oxbow
