// SPDX-License-Identifier: Apache-2.0
#include "control/kernel_devices.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <expected>
#include <thread>
#include <utility>

#include "os/apart.h"
#include "os/block_users.h"
#include "targets/target.h"

namespace oxbow::control {
namespace {

using std::size_t;  // which linux/fs.h uses and does not declare

// Programs that look at every new device, as udev does, have it open for a moment.
constexpr std::chrono::milliseconds k_patience(2'000);
constexpr std::chrono::milliseconds k_pause(20);

// Opened so that nobody else can mount it; or who has it in use.
std::expected<UniqueFd, std::string> claim(const std::string& path) {
  UniqueFd opened(::open(path.c_str(), O_RDONLY | O_EXCL | O_CLOEXEC));
  const int error = opened.valid() ? 0 : errno;
  const auto users = block_users(path);
  if (!users) return std::unexpected(users.error().why());
  if (!users->empty()) return std::unexpected(to_text(*users));
  if (error == EBUSY) return std::unexpected("something in the kernel uses it");
  if (error != 0) return std::unexpected(Error::from_errno({}, {}, error).why());
  return opened;
}

std::expected<UniqueFd, std::string> claim_with_patience(const std::string& path) {
  const auto deadline = std::chrono::steady_clock::now() + k_patience;
  while (true) {
    auto claimed = claim(path);
    if (claimed || std::chrono::steady_clock::now() >= deadline) return claimed;
    const auto users = block_users(path);
    const bool passing = !users || std::ranges::all_of(*users, [](const BlockUser& each) {
      return each.kind == BlockUser::Kind::process;
    });
    if (!passing) return claimed;
    std::this_thread::sleep_for(k_pause);
  }
}

}  // namespace

void KernelDevices::add(std::unique_ptr<KernelDevice> device) {
  const std::scoped_lock lock(mutex_);
  devices_.push_back(std::move(device));
}

std::vector<std::string> KernelDevices::paths() const {
  const std::scoped_lock lock(mutex_);
  std::vector<std::string> paths;
  for (const auto& each : devices_) paths.push_back(each->path());
  return paths;
}

std::string KernelDevices::users() const {
  const std::scoped_lock lock(mutex_);
  std::string text;
  for (const auto& each : devices_) {
    const auto claimed = claim(each->path());
    if (!claimed) text += (text.empty() ? "" : "; ") + each->path() + ": " + claimed.error();
  }
  return text;
}

std::string KernelDevices::fixed_size() const {
  const std::scoped_lock lock(mutex_);
  for (const auto& each : devices_) {
    if (std::string why = each->fixed_size(); !why.empty()) return each->path() + ": " + why;
  }
  return {};
}

Result<void> KernelDevices::changed() const {
  const std::scoped_lock lock(mutex_);
  for (const auto& each : devices_) {
    const UniqueFd opened(::open(each->path().c_str(), O_RDONLY | O_CLOEXEC));
    int error = opened.valid() ? 0 : errno;
    if (error == 0)
      error = run_apart(opened.get(), [](int fd) { return ::ioctl(fd, BLKFLSBUF, 0) == 0 ? 0 : errno; });
    if (error != 0)
      return std::unexpected(Error::from_errno("cannot make kernel look again", each->path(), error));
    if (!each->fixed_size().empty()) continue;
    if (auto grown = each->grow(); !grown) return grown;
  }
  return {};
}

Result<void> KernelDevices::check_below(const Target& target) const {
  const std::scoped_lock lock(mutex_);
  for (const auto& each : devices_) {
    for (const TargetLine& line : target.lines()) {
      for (const ChainPart& part : line.chain) {
        if (!lies_on(part.store.name, each->path())) continue;
        return std::unexpected(
            Error("cannot use file", part.store.name,
                  "it lies on " + each->path() + ", which is the device " + name_ + " itself"));
      }
    }
  }
  return {};
}

Result<void> KernelDevices::detach(bool force) {
  const std::scoped_lock lock(mutex_);
  const auto refuse = [this](std::string why) {
    return std::unexpected(Error("cannot detach device", name_, std::move(why)));
  };
  if (devices_.empty()) return refuse("it is no block device of the kernel's");
  std::vector<UniqueFd> claims(devices_.size());
  for (std::size_t i = 0; i < devices_.size() && !force; ++i) {
    auto claimed = claim_with_patience(devices_[i]->path());
    if (!claimed) return refuse(devices_[i]->path() + " is in use: " + claimed.error());
    claims[i] = std::move(*claimed);
  }
  Result<void> result;
  for (std::size_t i = 0; i < devices_.size(); ++i) {
    if (auto stopped = devices_[i]->stop(std::move(claims[i])); !stopped) result = std::move(stopped);
  }
  devices_.clear();
  return result;
}

void KernelDevices::stop(const std::function<void(const Error&)>& failed) {
  const std::scoped_lock lock(mutex_);
  for (auto& each : std::exchange(devices_, {})) {
    if (auto stopped = each->stop({}); !stopped) failed(stopped.error());
  }
}

}  // namespace oxbow::control
