// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the commands share that ask a process about a device that it serves.

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cli/cli11.h"
#include "oxbow/error.h"

namespace oxbow {

// Adds the argument NAME.
void add_served_name(CLI::App& command, std::string& name);

// GET of the device's path, `rest` after its name, from the process that serves it.
[[nodiscard]] Result<nlohmann::ordered_json> ask_served(const std::string& name, const std::string& rest);

}  // namespace oxbow
