// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "oxbow/error.h"

namespace oxbow::fuse {

// Something that is mounted. Thread safety: a value.
struct MountEntry {
  std::string device;  // "MAJOR:MINOR", no other mount's while it lasts
  std::string type;    // "ext4", "fuse.oxbow"
};

// The uppermost mount at exactly `path`, absolute and without links, in a text of the form of
// /proc/PID/mountinfo; nothing when there is none.
[[nodiscard]] std::optional<MountEntry> find_mount(std::string_view mountinfo, std::string_view path);

// The same in this process's own table.
[[nodiscard]] Result<std::optional<MountEntry>> mounted_at(const std::string& path);

}  // namespace oxbow::fuse
