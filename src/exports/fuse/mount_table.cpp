// SPDX-License-Identifier: Apache-2.0
#include "exports/fuse/mount_table.h"

#include <cstddef>
#include <utility>

#include "os/mount_info.h"
#include "os/read_file.h"

namespace oxbow::fuse {
namespace {

constexpr std::size_t k_largest = std::size_t{64} << 20U;  // bytes

}  // namespace

std::optional<MountEntry> find_mount(std::string_view mountinfo, std::string_view path) {
  std::optional<MountEntry> found;
  for (MountLine& line : parse_mount_info(mountinfo)) {
    if (line.point == path) found = MountEntry{std::move(line.device), std::move(line.type)};
  }
  return found;
}

Result<std::optional<MountEntry>> mounted_at(const std::string& path) {
  auto text = read_file("/proc/self/mountinfo", "cannot look for mounts", k_largest);
  if (!text) return std::unexpected(std::move(text.error()));
  return find_mount(*text, path);
}

}  // namespace oxbow::fuse
