// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "cli/cli11.h"
#include "oxbow/error.h"

namespace oxbow {

// Adds --yes.
void add_yes_flag(CLI::App& command, bool& yes);

// Shows `what` is going to happen and asks on a terminal whether it may. Without one it is refused unless `yes`, with
// which nothing is asked. The error begins with `cannot`, of `where`: "cannot merge layer".
[[nodiscard]] Result<void> confirm(const std::string& what, bool yes, const char* cannot,
                                   const std::string& where);

}  // namespace oxbow
