// SPDX-License-Identifier: Apache-2.0
#include "os/available_memory.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>
#include <optional>
#include <string_view>
#include <vector>

#include "os/read_file.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_no_limit = std::numeric_limits<std::uint64_t>::max();
constexpr std::size_t k_most_text_bytes = 1U << 20;

// How a version of control groups calls what it counts.
struct Names {
  const char* limit;
  const char* usage;
  std::array<std::string_view, 2> cached_files;  // in memory.stat
};
constexpr Names k_version_1{
    "memory.limit_in_bytes", "memory.usage_in_bytes", {"total_inactive_file", "total_active_file"}};
constexpr Names k_version_2{"memory.max", "memory.current", {"inactive_file", "active_file"}};

std::string text_of(const std::string& path) {
  return read_file(path, "cannot read", k_most_text_bytes).value_or("");
}

std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

// The number that the text begins with, after blanks.
std::optional<std::uint64_t> number_of(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  std::uint64_t number = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), number).ec != std::errc{}) return std::nullopt;
  return number;
}

// The number after `name` and a colon or blank at the beginning of a line.
std::optional<std::uint64_t> field_of(std::string_view text, std::string_view name) {
  for (const std::string_view line : lines_of(text)) {
    if (!line.starts_with(name) || line.size() == name.size()) continue;
    const char after = line[name.size()];
    if (after == ':' || after == ' ') return number_of(line.substr(name.size() + 1));
  }
  return std::nullopt;
}

std::uint64_t left_in_group(const std::string& folder, const Names& names) {
  const auto limit = number_of(text_of(folder + names.limit));  // "max" is none
  if (!limit) return k_no_limit;
  const auto usage = number_of(text_of(folder + names.usage));
  if (!usage) return *limit;
  const std::string counts = text_of(folder + "memory.stat");
  std::uint64_t cached = 0;
  for (const std::string_view name : names.cached_files) cached += field_of(counts, name).value_or(0);
  const std::uint64_t taken = *usage - std::min(cached, *usage);
  return *limit - std::min(taken, *limit);
}

// Of the group and of all that it is in. In a container the path may be one that only the host has: then the mount
// itself, which comes last, is the container's own group.
std::uint64_t left_in_groups(const std::string& mount, std::string path, const Names& names) {
  std::uint64_t left = k_no_limit;
  for (;;) {
    if (!path.empty() && path.back() == '/') path.pop_back();
    left = std::min(left, left_in_group(mount + path + "/", names));
    if (path.empty()) return left;
    path.resize(std::min(path.rfind('/'), path.size()));
  }
}

}  // namespace

std::uint64_t available_memory_bytes(const std::string& root) {
  std::uint64_t available = k_no_limit;
  if (const auto kib = field_of(text_of(root + "/proc/meminfo"), "MemAvailable")) available = *kib << 10;
  const std::string groups = text_of(root + "/proc/self/cgroup");
  for (const std::string_view line : lines_of(groups)) {
    // hierarchy:controllers:path; version 2 has number 0 and no controllers.
    const std::size_t first = line.find(':');
    const std::size_t second = first == line.npos ? line.npos : line.find(':', first + 1);
    if (second == line.npos) continue;
    const std::string controllers = "," + std::string(line.substr(first + 1, second - first - 1)) + ",";
    const std::string path(line.substr(second + 1));
    if (controllers.find(",memory,") != std::string::npos)
      available = std::min(available, left_in_groups(root + "/sys/fs/cgroup/memory", path, k_version_1));
    if (controllers == ",,")
      available = std::min(available, left_in_groups(root + "/sys/fs/cgroup", path, k_version_2));
  }
  return available;
}

}  // namespace oxbow
