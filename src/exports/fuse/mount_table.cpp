// SPDX-License-Identifier: Apache-2.0
#include "exports/fuse/mount_table.h"

#include <cstddef>
#include <iterator>
#include <sstream>
#include <utility>
#include <vector>

#include "os/read_file.h"

namespace oxbow::fuse {
namespace {

constexpr std::size_t k_largest = std::size_t{64} << 20U;  // bytes

bool is_octal(std::string_view digits) {
  for (const char each : digits) {
    if (each < '0' || each > '7') return false;
  }
  return true;
}

// The kernel writes blanks, tabs, line feeds and backslashes as a backslash and three octal digits.
std::string unescaped(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && is_octal(text.substr(i + 1, 3))) {
      out += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 3)), nullptr, 8));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::optional<MountEntry> find_mount(std::string_view mountinfo, std::string_view path) {
  constexpr std::size_t k_device = 2;
  constexpr std::size_t k_point = 4;
  std::optional<MountEntry> found;
  std::istringstream lines{std::string(mountinfo)};
  for (std::string line; std::getline(lines, line);) {
    // Optional fields end with a dash; the type comes after it.
    std::istringstream words(line);
    const std::vector<std::string> fields{std::istream_iterator<std::string>(words), {}};
    std::size_t dash = k_point + 1;
    while (dash < fields.size() && fields[dash] != "-") ++dash;
    if (dash + 1 >= fields.size() || unescaped(fields[k_point]) != path) continue;
    found = MountEntry{fields[k_device], unescaped(fields[dash + 1])};
  }
  return found;
}

Result<std::optional<MountEntry>> mounted_at(const std::string& path) {
  auto text = read_file("/proc/self/mountinfo", "cannot look for mounts", k_largest);
  if (!text) return std::unexpected(std::move(text.error()));
  return find_mount(*text, path);
}

}  // namespace oxbow::fuse
