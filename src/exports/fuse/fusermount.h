// SPDX-License-Identifier: Apache-2.0
#pragma once

// fusermount3, which is set-user-ID root and mounts for those who may not.

#include <string>

#include "os/fd.h"
#include "oxbow/error.h"

namespace oxbow::fuse {

// Mounts at `path`, as the `options` of mount(8) say; the descriptor answers the kernel's requests.
[[nodiscard]] Result<UniqueFd> fusermount(const std::string& path, const std::string& options);

// Takes the mount at `path` away, also when it is in use.
[[nodiscard]] Result<void> fusermount_away(const std::string& path);

}  // namespace oxbow::fuse
