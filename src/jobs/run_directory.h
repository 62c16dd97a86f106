// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "os/fd.h"
#include "oxbow/error.h"

namespace oxbow {

// Where this user's sockets are: $XDG_RUNTIME_DIR/oxbow, or /run/oxbow where that is not set.
[[nodiscard]] std::string run_directory_path();
// The same, and made, for this user alone, when it is not there. Fails as open_run_directory() does.
[[nodiscard]] Result<std::string> run_directory();

// Opens a directory for sockets. Fails when it isn't one, belongs to another user or can be written to by others:
// who can write there can put a socket of theirs in the place of ours.
[[nodiscard]] Result<UniqueFd> open_run_directory(const std::string& path);

}  // namespace oxbow
