// SPDX-License-Identifier: Apache-2.0
#include "os/block_users.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <system_error>

#include "os/mount_info.h"
#include "os/read_file.h"

namespace oxbow {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t k_largest = std::size_t{64} << 20U;  // bytes, of a file of the kernel's
constexpr std::size_t k_most_named = 4;
constexpr unsigned k_deepest = 32;

// A block device and its partitions, by "MAJOR:MINOR", with their paths.
using Devices = std::map<std::string, std::string>;

std::string number_text(dev_t device) { return fmt::format("{}:{}", major(device), minor(device)); }

// Without the line feed at the end; empty where it can't be read.
std::string text_of(const fs::path& path) {
  const auto text = read_file(path.string(), "cannot look for users", k_largest);
  if (!text) return {};
  return text->ends_with('\n') ? text->substr(0, text->size() - 1) : *text;
}

std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code failed;
  for (fs::directory_iterator each(folder, failed), end; !failed && each != end; each.increment(failed))
    found.push_back(each->path());
  std::ranges::sort(found);
  return found;
}

// The number of the block device that `path` is; nothing where it is none.
std::optional<std::string> block_number(const std::string& path) {
  struct ::stat found{};
  if (::stat(path.c_str(), &found) != 0 || !S_ISBLK(found.st_mode)) return std::nullopt;
  return number_text(found.st_rdev);
}

fs::path folder_of(const std::string& number) { return "/sys/dev/block/" + number; }

Devices with_partitions(const std::string& number, const std::string& path) {
  Devices devices{{number, path}};
  for (const fs::path& each : entries_of(folder_of(number))) {
    std::error_code failed;
    if (!fs::exists(each / "partition", failed)) continue;
    devices.emplace(text_of(each / "dev"), "/dev/" + each.filename().string());
  }
  return devices;
}

// Whether a mount is one of them. Of btrfs and the like only the source tells.
bool is_from(const MountLine& line, const Devices& devices) {
  if (devices.contains(line.device)) return true;
  if (!line.source.starts_with("/dev/")) return false;
  const auto number = block_number(line.source);
  return number && devices.contains(*number);
}

bool is_number(const std::string& text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

std::string process_text(const fs::path& process) {
  return fmt::format("process {} ({})", process.filename().string(), text_of(process / "comm"));
}

// Of all mount namespaces, ours first; a mount that several show is one.
void add_mounts(const Devices& devices, const std::vector<fs::path>& processes, std::vector<BlockUser>& out) {
  std::set<std::string> spaces;
  std::set<std::string> points;
  const auto look = [&](const fs::path& process, bool ours) {
    std::error_code failed;
    const fs::path space = fs::read_symlink(process / "ns/mnt", failed);
    if (failed || !spaces.insert(space.string()).second) return;
    for (const MountLine& line : parse_mount_info(text_of(process / "mountinfo"))) {
      if (!is_from(line, devices) || !points.insert(line.point).second) continue;
      std::string text = "mounted at " + line.point;
      if (!ours) text += " in the mount namespace of " + process_text(process);
      out.push_back({BlockUser::Kind::mount, std::move(text)});
    }
  };
  look("/proc/self", true);
  for (const fs::path& each : processes) look(each, false);
}

void add_swap(const Devices& devices, std::vector<BlockUser>& out) {
  std::istringstream lines(text_of("/proc/swaps"));
  std::string line;
  std::getline(lines, line);  // the head
  while (std::getline(lines, line)) {
    const std::string path = without_escapes(line.substr(0, line.find_first_of(" \t")));
    const auto number = block_number(path);
    if (number && devices.contains(*number)) out.push_back({BlockUser::Kind::swap, path + " is swap space"});
  }
}

// What the kernel calls a device that lies on others, with the name of people where it has one.
std::string holder_text(const std::string& name) {
  const std::string people = text_of("/sys/block/" + name + "/dm/name");
  return people.empty() ? name : fmt::format("{} ({})", name, people);
}

void add_holders(const Devices& devices, std::vector<BlockUser>& out) {
  for (const auto& [number, path] : devices) {
    for (const fs::path& each : entries_of(folder_of(number) / "holders"))
      out.push_back({BlockUser::Kind::holder, holder_text(each.filename().string()) + " lies on it"});
  }
  for (const fs::path& each : entries_of("/sys/block")) {
    const auto number = block_number(text_of(each / "loop/backing_file"));
    if (number && devices.contains(*number))
      out.push_back({BlockUser::Kind::holder, each.filename().string() + " lies on it"});
  }
}

// Only what is called as a device is looked at: any other file may belong to somebody who doesn't answer.
bool has_open(const fs::path& process, const Devices& devices) {
  for (const fs::path& each : entries_of(process / "fd")) {
    std::error_code failed;
    const std::string path = fs::read_symlink(each, failed).string();
    if (failed || !path.starts_with("/dev/")) continue;
    const auto number = block_number(each.string());
    if (number && devices.contains(*number)) return true;
  }
  return false;
}

std::vector<fs::path> all_processes() {
  std::vector<fs::path> found = entries_of("/proc");
  std::erase_if(found, [](const fs::path& each) { return !is_number(each.filename().string()); });
  return found;
}

// --- what a file lies on ---

// The block device that is below the file system of the number `device`, where it is only the kernel's.
std::optional<std::string> source_of(const std::string& device) {
  for (const MountLine& line : parse_mount_info(text_of("/proc/self/mountinfo"))) {
    if (line.device == device && line.source.starts_with("/dev/")) return block_number(line.source);
  }
  return std::nullopt;
}

bool file_lies_on(const std::string& file, const Devices& devices, unsigned depth);

bool device_lies_on(const std::string& number, const Devices& devices, unsigned depth) {
  if (devices.contains(number)) return true;
  if (depth == 0) return false;
  const fs::path folder = folder_of(number);
  std::error_code failed;
  // A partition has what its disk has.
  if (fs::exists(folder / "partition", failed))
    return device_lies_on(text_of(fs::canonical(folder, failed).parent_path() / "dev"), devices, depth - 1);
  for (const fs::path& each : entries_of(folder / "slaves")) {
    if (device_lies_on(text_of(each / "dev"), devices, depth - 1)) return true;
  }
  const std::string file = text_of(folder / "loop/backing_file");
  return !file.empty() && file_lies_on(file, devices, depth - 1);
}

bool file_lies_on(const std::string& file, const Devices& devices, unsigned depth) {
  struct ::stat found{};
  if (depth == 0 || ::stat(file.c_str(), &found) != 0) return false;
  if (S_ISBLK(found.st_mode)) return device_lies_on(number_text(found.st_rdev), devices, depth - 1);
  const std::string number = number_text(found.st_dev);
  if (major(found.st_dev) != 0) return device_lies_on(number, devices, depth - 1);
  const auto source = source_of(number);
  return source && device_lies_on(*source, devices, depth - 1);
}

}  // namespace

Result<std::vector<BlockUser>> block_users(const std::string& path) {
  const auto number = block_number(path);
  if (!number) return std::unexpected(Error("cannot look for users", path, "it is no block device"));
  const Devices devices = with_partitions(*number, path);
  const std::vector<fs::path> processes = all_processes();
  std::vector<BlockUser> users;
  add_mounts(devices, processes, users);
  add_swap(devices, users);
  add_holders(devices, users);
  const std::string self = std::to_string(::getpid());
  for (const fs::path& each : processes) {
    if (each.filename() == self || !has_open(each, devices)) continue;
    users.push_back({BlockUser::Kind::process, process_text(each) + " has it open"});
  }
  return users;
}

std::string to_text(const std::vector<BlockUser>& users) {
  std::string text;
  for (std::size_t i = 0; i < std::min(users.size(), k_most_named); ++i)
    text += (i == 0 ? "" : ", ") + users[i].text;
  return users.size() > k_most_named ? text + ", ..." : text;
}

bool lies_on(const std::string& file, const std::string& path) {
  const auto number = block_number(path);
  return number && file_lies_on(file, with_partitions(*number, path), k_deepest);
}

}  // namespace oxbow
