// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace oxbow {

// A line of /proc/PID/mountinfo. Thread safety: a value.
struct MountLine {
  std::string device;  // "MAJOR:MINOR"; of some file systems, one of the kernel's own making
  std::string point;
  std::string type;
  std::string source;  // "/dev/loop0p1", where the file system has one
};

// What the text of such a file says; lines that are none are left out.
[[nodiscard]] std::vector<MountLine> parse_mount_info(std::string_view text);

// Without the escapes in which the kernel writes blanks and line feeds.
[[nodiscard]] std::string without_escapes(std::string_view text);

}  // namespace oxbow
