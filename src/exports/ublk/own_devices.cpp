// SPDX-License-Identifier: Apache-2.0
#include "exports/ublk/own_devices.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <thread>

#include "os/block_users.h"
#include "os/process_info.h"
#include "os/read_file.h"

namespace oxbow::ublk {
namespace {

constexpr auto k_lock_what = "cannot lock block devices";
constexpr std::chrono::seconds k_lock_patience(60);
constexpr std::chrono::milliseconds k_pause(10);
constexpr std::size_t k_largest_note = 1 << 20;
constexpr std::string_view k_note_prefix = "ublk";
constexpr std::string_view k_note_suffix = ".note";
constexpr std::string_view k_serving = "serving";
constexpr std::string_view k_recovering = "recovering";

// FNV-1a: has to be the same in every version that may take over from another.
std::uint32_t hash(std::string_view text) noexcept {
  std::uint32_t value = 2166136261U;
  for (const char each : text) value = (value ^ static_cast<unsigned char>(each)) * 16777619U;
  return value;
}

constexpr std::uint64_t k_magic = 0x6f78;  // "ox"
constexpr unsigned k_part_bits = 24;
constexpr std::uint64_t k_part_mask = (std::uint64_t{1} << k_part_bits) - 1;

std::uint64_t directory_mark(const std::string& run_directory) noexcept {
  return (k_magic << k_part_bits | (hash(run_directory) & k_part_mask)) << k_part_bits;
}

std::string note_path(const std::string& run_directory, std::uint32_t device) {
  return run_directory + "/" + std::string(k_note_prefix) + std::to_string(device) +
         std::string(k_note_suffix);
}

// The numbers N of all files PREFIX N SUFFIX of a folder.
std::vector<std::uint32_t> numbers(const std::string& folder, std::string_view prefix,
                                   std::string_view suffix) {
  std::vector<std::uint32_t> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with(prefix) || !name.ends_with(suffix)) continue;
    std::uint32_t number = 0;
    const char* const end = name.data() + name.size() - suffix.size();
    const auto parsed = std::from_chars(name.data() + prefix.size(), end, number);
    if (parsed.ec == std::errc() && parsed.ptr == end) found.push_back(number);
  }
  std::ranges::sort(found);
  return found;
}

}  // namespace

std::uint64_t mark_of(const std::string& run_directory, const std::string& name) {
  return directory_mark(run_directory) | (hash(name) & k_part_mask);
}

Result<std::vector<DeviceInfo>> own_devices(Control& control, const std::string& run_directory) {
  std::vector<DeviceInfo> found;
  for (const std::uint32_t number : numbers("/dev", "ublkc", "")) {
    const auto info = control.info(number);
    // One that went away meanwhile, or is of another user.
    if (!info) continue;
    if ((info->mark & ~k_part_mask) == directory_mark(run_directory)) found.push_back(*info);
  }
  return found;
}

Result<std::optional<DeviceInfo>> own_device(Control& control, const std::string& run_directory,
                                             const std::string& name) {
  const auto all = own_devices(control, run_directory);
  if (!all) return std::unexpected(all.error());
  const auto found =
      std::ranges::find(*all, mark_of(run_directory, name), [](const DeviceInfo& each) { return each.mark; });
  if (found == all->end()) return std::nullopt;
  return *found;
}

Result<std::optional<UniqueFd>> lock_devices(const std::string& run_directory, bool patient) {
  const std::string path = run_directory + "/ublk.lock";
  UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) return std::unexpected(Error::from_errno(k_lock_what, path, errno));
  const auto until = std::chrono::steady_clock::now() + k_lock_patience;
  while (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return std::unexpected(Error::from_errno(k_lock_what, path, errno));
    if (!patient) return std::nullopt;
    if (std::chrono::steady_clock::now() > until)
      return std::unexpected(Error(k_lock_what, path, "another process has held it for a minute"));
    std::this_thread::sleep_for(k_pause);
  }
  return std::optional<UniqueFd>(std::move(file));
}

Result<void> write_note(const std::string& run_directory, std::uint32_t device, const Note& note) {
  const std::string path = note_path(run_directory, device);
  const std::string fresh = path + ".new";
  std::string text = fmt::format("{}\n{}\n", note.name, note.recovering ? k_recovering : k_serving);
  for (const std::string& each : note.sources) text += each + "\n";
  {
    std::ofstream file(fresh, std::ios::trunc);
    file << text << std::flush;
    if (!file) return std::unexpected(Error("cannot write note of block device", fresh, "writing failed"));
  }
  if (::rename(fresh.c_str(), path.c_str()) != 0)
    return std::unexpected(Error::from_errno("cannot write note of block device", path, errno));
  return {};
}

std::optional<Note> read_note(const std::string& run_directory, std::uint32_t device) {
  const auto text = read_file(note_path(run_directory, device), "cannot read note", k_largest_note);
  if (!text) return std::nullopt;
  std::istringstream lines(*text);
  Note note;
  std::string state;
  if (!std::getline(lines, note.name) || !std::getline(lines, state)) return std::nullopt;
  if (state != k_serving && state != k_recovering) return std::nullopt;
  note.recovering = state == k_recovering;
  for (std::string line; std::getline(lines, line);) note.sources.push_back(line);
  return note;
}

void remove_note(const std::string& run_directory, std::uint32_t device) noexcept {
  (void)::unlink(note_path(run_directory, device).c_str());
}

namespace {

// Whether nobody has the block device, its partitions included. What can't be found out is no.
bool unused(std::uint32_t device) {
  const std::string path = block_path(device);
  const auto users = block_users(path);
  if (users && !users->empty()) return false;
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
  return file.valid() || errno == ENOENT;
}

// Whether a process serves it, or is about to: then it has the character device open.
bool has_process(const DeviceInfo& info) {
  const UniqueFd file(::open(character_path(info.device).c_str(), O_RDWR | O_CLOEXEC));
  if (!file.valid() && errno == EBUSY) return true;
  const bool live = static_cast<DeviceState>(info.state) == DeviceState::live;
  return live && process_runs(static_cast<std::uint64_t>(info.process));
}

bool may_have_devices(const std::string& run_directory) {
  return ::access(control_path().c_str(), F_OK) == 0 && ::access(run_directory.c_str(), F_OK) == 0;
}

// Its note, if it may be taken over.
std::optional<Note> note_to_take_over(const std::string& run_directory, const DeviceInfo& info) {
  if (static_cast<DeviceState>(info.state) == DeviceState::dead) return std::nullopt;
  if ((info.flags & k_user_recovery) == 0) return std::nullopt;
  auto note = read_note(run_directory, info.device);
  if (!note || note->recovering) return std::nullopt;
  return note;
}

// What was asked of it fails from now on.
Result<void> remove_left(Control& control, const std::string& run_directory, const DeviceInfo& info) {
  if (auto stopped = control.stop(info.device); !stopped) return stopped;
  if (auto removed = control.remove(info.device); !removed) return removed;
  remove_note(run_directory, info.device);
  return {};
}

// Of devices that are gone: a process was killed between the two.
void remove_stray_notes(const std::string& run_directory, const std::vector<DeviceInfo>& devices) {
  for (const std::uint32_t number : numbers(run_directory, k_note_prefix, k_note_suffix)) {
    const bool there = std::ranges::find(devices, number, &DeviceInfo::device) != devices.end();
    if (!there) remove_note(run_directory, number);
  }
}

}  // namespace

Result<std::vector<Waiting>> clean_up(Control& control, const std::string& run_directory,
                                      const std::string& but_for) {
  std::vector<Waiting> waiting;
  const auto all = own_devices(control, run_directory);
  if (!all) return std::unexpected(all.error());
  remove_stray_notes(run_directory, *all);
  for (const DeviceInfo& info : *all) {
    if (has_process(info)) continue;
    if (!but_for.empty() && info.mark == mark_of(run_directory, but_for)) continue;
    if (const auto note = note_to_take_over(run_directory, info); note && !unused(info.device)) {
      waiting.push_back({note->name, block_path(info.device)});
    } else if (auto removed = remove_left(control, run_directory, info); !removed) {
      return std::unexpected(std::move(removed.error()));
    }
  }
  return waiting;
}

Result<std::vector<Waiting>> clean_up(const std::string& run_directory) {
  if (!may_have_devices(run_directory)) return {};
  auto control = Control::open();
  if (!control) return {};  // without rights there is none of this user's
  const auto lock = lock_devices(run_directory, false);
  if (!lock) return std::unexpected(lock.error());
  if (!*lock) return {};
  return clean_up(*control, run_directory, "");
}

Result<std::optional<std::string>> fail_left(const std::string& run_directory, const std::string& name) {
  if (!may_have_devices(run_directory)) return {};
  auto control = Control::open();
  if (!control) return std::unexpected(std::move(control.error()));
  const auto lock = lock_devices(run_directory, true);
  if (!lock) return std::unexpected(lock.error());
  const auto left = own_device(*control, run_directory, name);
  if (!left) return std::unexpected(left.error());
  if (!*left || has_process(**left)) return {};
  if (auto removed = remove_left(*control, run_directory, **left); !removed)
    return std::unexpected(std::move(removed.error()));
  return block_path((*left)->device);
}

}  // namespace oxbow::ublk
