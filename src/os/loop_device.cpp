// SPDX-License-Identifier: Apache-2.0
#include "os/loop_device.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "os/apart.h"

namespace oxbow {
namespace {

constexpr auto k_what = "cannot make loop device";
constexpr auto k_control = "/dev/loop-control";
constexpr unsigned k_tries = 100;
constexpr std::chrono::milliseconds k_pause(10);
constexpr std::uint32_t k_sector = 512;  // bytes

std::unexpected<Error> refuse(const std::string& where, int error) {
  return std::unexpected(Error::from_errno(k_what, where, error));
}

loop_config configuration(int file, const LoopDevice::Options& options) noexcept {
  loop_config config{};
  config.fd = static_cast<std::uint32_t>(file);
  config.block_size = k_sector;
  config.info.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_PARTSCAN | LO_FLAGS_DIRECT_IO;
  if (options.read_only) config.info.lo_flags |= LO_FLAGS_READ_ONLY;
  const std::size_t length = std::min<std::size_t>(options.name.size(), LO_NAME_SIZE - 1);
  std::memcpy(config.info.lo_file_name, options.name.data(), length);
  return config;
}

// The path of the file, from the kernel's list of devices; empty where there is none.
std::string backing_file(const std::string& path) noexcept {
  const std::string where = "/sys/block/" + path.substr(path.rfind('/') + 1) + "/loop/backing_file";
  const UniqueFd file(::open(where.c_str(), O_RDONLY | O_CLOEXEC));
  std::array<char, 4096> text;
  const ssize_t got = file.valid() ? ::read(file.get(), text.data(), text.size()) : 0;
  return {text.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0))};
}

// Opens it with the number of the descriptor `place`, which is closed. An errno value, or 0.
int open_at(const std::string& path, int flags, int place) noexcept {
  const UniqueFd opened(::open(path.c_str(), flags | O_CLOEXEC));
  return opened.valid() && ::dup3(opened.get(), place, O_CLOEXEC) >= 0 ? 0 : errno;
}

// Makes a free one a device over the file; returns its path, and in `held` what keeps it from going.
Result<std::string> configure_free(const std::string& file, const LoopDevice::Options& options,
                                   UniqueFd& held) {
  const int flags = (options.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC;
  const UniqueFd opened(::open(file.c_str(), flags));
  if (!opened.valid()) return refuse(file, errno);
  const UniqueFd control(::open(k_control, O_RDWR | O_CLOEXEC));
  if (!control.valid()) return refuse(k_control, errno);
  const loop_config config = configuration(opened.get(), options);
  for (unsigned i = 0; i < k_tries; ++i) {
    const int number = ::ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return refuse(k_control, errno);
    std::string path = "/dev/loop" + std::to_string(number);
    held = UniqueFd(::open(path.c_str(), flags));
    if (!held.valid()) return refuse(path, errno);
    if (::ioctl(held.get(), LOOP_CONFIGURE, &config) == 0) return path;
    if (errno == ENOTTY || errno == EINVAL)
      return std::unexpected(
          Error(k_what, path, "the kernel has no LOOP_CONFIGURE; Linux 5.8 is the first that has it"));
    // Somebody else was faster, or has just let go of it.
    if (errno != EBUSY) return refuse(path, errno);
    std::this_thread::sleep_for(k_pause);
  }
  return std::unexpected(Error(k_what, k_control, "others take every free loop device first"));
}

}  // namespace

Result<LoopDevice> LoopDevice::make(const std::string& file, UniqueFd place, const Options& options) {
  UniqueFd held;
  Result<std::string> path;
  const auto configure = [&] { path = configure_free(file, options, held); };
  const auto hold = [&] {
    if (!path) return;
    // For reading only: some kernels mount nothing that others have open for writing.
    if (const int error = open_at(*path, O_RDONLY, place.get()); error != 0) path = refuse(*path, error);
  };
  const int error = run_apart_before(configure, hold);
  (void)held.release();  // it was closed with the thread's
  if (error != 0) return refuse("thread", error);
  if (!path) return std::unexpected(std::move(path.error()));
  return LoopDevice(std::move(*path), std::move(place));
}

void LoopDevice::hold(UniqueFd other) noexcept {
  // The number stays. That it fails is impossible with two open descriptors; then the device is held by the old one.
  (void)::dup3(other.get(), held_.get(), O_CLOEXEC);
}

Result<void> LoopDevice::grow() {
  const auto take = [](int fd) { return ::ioctl(fd, LOOP_SET_CAPACITY, 0) == 0 ? 0 : errno; };
  if (const int error = run_apart(held_.get(), take); error != 0)
    return std::unexpected(Error::from_errno("cannot resize loop device", path_, error));
  return {};
}

Result<void> LoopDevice::sync() {
  const auto write = [](int fd) { return ::fsync(fd) == 0 ? 0 : errno; };
  if (const int error = run_apart(held_.get(), write); error != 0)
    return std::unexpected(Error::from_errno("cannot flush loop device", path_, error));
  return {};
}

bool LoopDevice::release() noexcept {
  if (!held_.valid()) return true;
  const std::string before = backing_file(path_);
  close_apart(std::move(held_));
  const std::string after = backing_file(path_);
  return after.empty() || after != before;
}

}  // namespace oxbow
