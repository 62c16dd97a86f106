// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "oxbow/error.h"

namespace oxbow {

// Where this user's sockets are: $XDG_RUNTIME_DIR/oxbow, or /run/oxbow where that is not set. Made, for this
// user alone, when it is not there.
[[nodiscard]] Result<std::string> run_directory();

}  // namespace oxbow
