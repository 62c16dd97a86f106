// SPDX-License-Identifier: Apache-2.0
#include "exports/ublk/ublk_export.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <thread>
#include <utility>

#include "device/device.h"
#include "exports/ublk/continuity.h"
#include "exports/ublk/own_devices.h"
#include "exports/ublk/parameters.h"
#include "exports/ublk/partitions.h"
#include "os/apart.h"
#include "os/process_info.h"

namespace oxbow::ublk {
namespace {

constexpr unsigned k_most_threads = 4;  // unless more are asked for
constexpr std::uint16_t k_depth = 128;
constexpr std::uint32_t k_most_bytes = 512U << 10U;  // each queue keeps a buffer of it
// Without k_user_copy, each request has memory of its own.
constexpr std::uint16_t k_depth_with_memory = 32;
constexpr std::chrono::seconds k_end_patience(30);  // for the end of a killed process
constexpr std::chrono::seconds k_node_patience(5);  // for nodes in /dev, and rights to them
constexpr std::chrono::milliseconds k_pause(5);

unsigned thread_count(unsigned wanted) noexcept {
  if (wanted != 0) return wanted;
  return std::clamp(std::thread::hardware_concurrency(), 1U, k_most_threads);
}

// Opens a node that may just have been made, and that udev may still have to give to its owner.
Result<UniqueFd> open_node(const std::string& path, int flags) {
  const auto until = std::chrono::steady_clock::now() + k_node_patience;
  while (true) {
    UniqueFd file(::open(path.c_str(), flags | O_CLOEXEC));
    if (file.valid()) return file;
    const int error = errno;
    const bool may_come = error == ENOENT || error == EACCES || error == EPERM || error == EBUSY;
    if (!may_come || std::chrono::steady_clock::now() > until)
      return std::unexpected(Error::from_errno("cannot open block device", path, error));
    std::this_thread::sleep_for(k_pause);
  }
}

}  // namespace

Result<void> UblkExport::available() {
  if (const auto control = Control::open(); !control) return std::unexpected(control.error());
  return {};
}

UblkExport::UblkExport(Device& device, Options options, Control control)
    : device_(device), options_(std::move(options)), control_(std::move(control)) {}

UblkExport::~UblkExport() {
  if (const auto stopped = stop({}); !stopped) log(LogLevel::error, stopped.error().text());
}

void UblkExport::log(LogLevel level, const std::string& line) const {
  if (options_.log != nullptr) options_.log->write(level, "ublk", line);
}

Result<std::unique_ptr<UblkExport>> UblkExport::start(Device& device, const Options& options) {
  auto control = Control::open();
  if (!control) return std::unexpected(std::move(control.error()));
  const auto lock = lock_devices(options.run_directory, true);
  if (!lock) return std::unexpected(lock.error());
  std::unique_ptr<UblkExport> made(new UblkExport(device, options, std::move(*control)));
  if (auto begun = made->begin(); !begun) {
    made->give_up();
    return std::unexpected(std::move(begun.error()));
  }
  return made;
}

Result<void> UblkExport::begin() {
  if (auto right = check_block_size(device_, "ublk", options_.log); !right) return right;
  const auto features = control_.features();
  if (!features) return std::unexpected(features.error());
  features_ = *features;
  const auto left = own_device(control_, options_.run_directory, options_.name);
  if (!left) return std::unexpected(left.error());
  if (const auto others = clean_up(control_, options_.run_directory, options_.name); !others)
    log(LogLevel::warning, others.error().text());
  if (!*left) return make();
  const bool served = static_cast<DeviceState>((*left)->state) == DeviceState::live &&
                      process_runs(static_cast<std::uint64_t>((*left)->process));
  if (served) {
    return std::unexpected(Error("cannot make block device", options_.name,
                                 block_path((*left)->device) + " is that already, served by process " +
                                     std::to_string((*left)->process)));
  }
  const DeviceInfo& info = **left;
  const std::string path = block_path(info.device);
  constexpr auto k_cannot = "cannot take over block device";
  Judgement judgement = judge_left(info);
  if (judgement.continuity == Continuity::other)
    return std::unexpected(Error(k_cannot, path, judgement.why + ", and waits for that"));
  added_ = true;
  info_ = info;
  if (judgement.continuity == Continuity::same) return take_over(info);
  give_up();
  // Before it began, nobody had it.
  if (static_cast<DeviceState>(info.state) == DeviceState::dead) return make();
  return std::unexpected(
      Error(k_cannot, path, judgement.why + ": it was stopped, and all its requests fail"));
}

Result<void> UblkExport::make() {
  const bool privileged = ::geteuid() == 0;
  DeviceInfo wishes{.device = k_any_device, .process = ::getpid()};
  wishes.queues = static_cast<std::uint16_t>(thread_count(options_.queues));
  wishes.depth = privileged ? k_depth : k_depth_with_memory;
  wishes.most_bytes = k_most_bytes;
  wishes.flags = k_encoded_commands;
  if (privileged) {
    const std::uint64_t wanted =
        k_user_copy | k_user_recovery | k_user_recovery_reissue | k_no_partition_scan;
    wishes.flags |= wanted & features_;
  } else {
    wishes.flags |= k_unprivileged;
  }
  wishes.mark = mark_of(options_.run_directory, options_.name);
  const auto info = control_.add(wishes);
  if (!info) return std::unexpected(info.error());
  info_ = *info;
  added_ = true;
  if (auto opened = open_character(); !opened) return opened;
  const bool read_only = options_.read_only || !device_.writable();
  const Parameters parameters =
      parameters_for(device_.size(), discard_granularity(device_), read_only, info_);
  if (auto set = control_.set_parameters(info_.device, parameters); !set) return set;
  if (auto noted = note(false); !noted) return noted;
  if (auto started = start_threads(); !started) return started;
  if (auto started = control_.start(info_.device); !started) return started;
  path_ = block_path(info_.device);
  find_partitions();
  return {};
}

// What this device is to the one that was left.
Judgement UblkExport::judge_left(const DeviceInfo& left) {
  if (static_cast<DeviceState>(left.state) == DeviceState::dead) return {Continuity::lost, "it never began"};
  if ((left.flags & k_user_recovery) == 0) return {Continuity::lost, "the driver does not hand it over"};
  const auto note = read_note(options_.run_directory, left.device);
  if (!note) return {Continuity::lost, "there is no note of what it was"};
  // Two names may have the same mark.
  if (note->name != options_.name) return {Continuity::other, "it is called " + note->name};
  if (note->recovering) return {Continuity::lost, "a process that took it over was killed meanwhile"};
  const auto parameters = control_.parameters(left.device);
  if (!parameters) return {Continuity::other, parameters.error().text()};
  const bool read_only = options_.read_only || !device_.writable();
  const Parameters now = parameters_for(device_.size(), discard_granularity(device_), read_only, left);
  if (parameters->sectors != now.sectors)
    return {Continuity::other, fmt::format("it has {} sectors, not {}", parameters->sectors, now.sectors)};
  if ((parameters->attributes & k_read_only) != (now.attributes & k_read_only))
    return {Continuity::other, read_only ? "it is writable" : "it is read-only"};
  return judge(note->sources, sources_of(device_));
}

Result<void> UblkExport::take_over(const DeviceInfo& left) {
  // The driver can't be asked how far a recovery came, and begins none anew that a kill cut off.
  if (auto noted = note(true); !noted) return noted;
  if (auto begun = control_.start_recovery(left.device, k_end_patience); !begun) return begun;
  if (auto opened = open_character(); !opened) return opened;
  if (auto started = start_threads(); !started) return started;
  if (auto ended = control_.end_recovery(left.device); !ended) return ended;
  if (auto noted = note(false); !noted) return noted;
  path_ = block_path(left.device);
  taken_over_ = true;
  log(LogLevel::info, device_.name() + ": took over " + path_ + " from process " +
                          std::to_string(left.process) + ", which is gone");
  return {};
}

Result<void> UblkExport::open_character() {
  auto file = open_node(character_path(info_.device), O_RDWR);
  if (!file) return std::unexpected(std::move(file.error()));
  character_ = std::move(*file);
  return {};
}

Result<void> UblkExport::start_threads() {
  for (unsigned queue = 0; queue < info_.queues; ++queue) {
    auto thread = QueueThread::start(device_, character_.get(),
                                     {.queue = queue,
                                      .info = info_,
                                      .read_only = options_.read_only,
                                      .untrusted = (info_.flags & k_no_partition_scan) == 0,
                                      .log = options_.log});
    if (!thread) return std::unexpected(std::move(thread.error()));
    threads_.push_back(std::move(*thread));
  }
  return {};
}

Result<void> UblkExport::note(bool recovering) {
  return write_note(options_.run_directory, info_.device,
                    {.name = options_.name, .sources = sources_of(device_), .recovering = recovering});
}

void UblkExport::find_partitions() {
  const bool by_driver = (info_.flags & k_no_partition_scan) != 0;
  if (const auto found = add_partitions(device_, path_, by_driver); !found)
    log(LogLevel::warning, found.error().text());
}

std::string UblkExport::fixed_size() const { return "ublk devices can't change their size"; }

Result<void> UblkExport::grow() {
  return std::unexpected(Error("cannot resize block device", path_, fixed_size()));
}

// What is in the page cache would fail when the device is stopped.
Result<void> UblkExport::sync_block_device(const UniqueFd& claim) const {
  UniqueFd file;
  if (!claim.valid()) file = UniqueFd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  int error = claim.valid() || file.valid() ? 0 : errno;
  if (error == 0) {
    error = run_apart(claim.valid() ? claim.get() : file.get(),
                      [](int fd) { return ::fsync(fd) == 0 ? 0 : errno; });
  }
  if (error == 0) return {};
  return std::unexpected(Error::from_errno("cannot sync block device", path_, error));
}

Result<void> UblkExport::stop(UniqueFd claim) {
  if (!added_) return {};
  const auto lock = lock_devices(options_.run_directory, true);
  auto synced = path_.empty() ? Result<void>() : sync_block_device(claim);
  added_ = false;
  auto ends = take_away(std::move(claim));
  for (auto* const each : {&synced, &ends[0], &ends[1]}) {
    if (!*each) return std::unexpected(std::move(each->error()));
  }
  if (!lock) return std::unexpected(lock.error());
  return {};
}

// The lock is held.
void UblkExport::give_up() noexcept {
  if (!std::exchange(added_, false)) return;
  for (const auto& each : take_away({})) {
    if (!each) log(LogLevel::error, each.error().text());
  }
}

// The lock is held. What became of stopping it, and of removing it.
std::array<Result<void>, 2> UblkExport::take_away(UniqueFd claim) {
  auto stopped = control_.stop(info_.device);
  claim.reset();  // nobody can open it any more, and the driver waits for those who have
  for (const auto& thread : threads_) stopped ? thread->join() : thread->abandon();
  threads_.clear();
  character_.reset();
  auto removed = control_.remove(info_.device);
  remove_note(options_.run_directory, info_.device);
  return {std::move(stopped), std::move(removed)};
}

}  // namespace oxbow::ublk
