// SPDX-License-Identifier: Apache-2.0
#include "exports/ublk/partitions.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <thread>

#include "device/device.h"
#include "os/fd.h"
#include "os/queue.h"
#include "os/shell_command.h"

namespace oxbow::ublk {
namespace {

constexpr auto k_what = "cannot look for partitions";
constexpr std::chrono::milliseconds k_pause(5);
constexpr std::chrono::seconds k_patience(30);

bool has_boot_mark(Device& device) {
  constexpr std::size_t k_mark_at = 510;
  std::array<std::byte, 2> mark{};
  if (device.size() < k_mark_at + mark.size()) return false;
  Queue queue;
  const IoStatus read = run_blocking(queue, [&](Io& io) { return device.read(io, k_mark_at, mark); });
  return read.ok() && mark[0] == std::byte{0x55} && mark[1] == std::byte{0xaa};
}

Result<void> ask_kernel(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return std::unexpected(Error::from_errno(k_what, path, errno));
  const auto until = std::chrono::steady_clock::now() + k_patience;
  while (::ioctl(file.get(), BLKRRPART) != 0) {
    if (errno != EBUSY || std::chrono::steady_clock::now() > until)
      return std::unexpected(Error::from_errno(k_what, path, errno));
    std::this_thread::sleep_for(k_pause);
  }
  return {};
}

Result<void> ask_partx(const std::string& path) {
  auto command = ShellCommand::start("exec partx --update " + path + " >/dev/null 2>&1", {});
  if (!command) return std::unexpected(std::move(command.error()));
  const auto until = std::chrono::steady_clock::now() + k_patience;
  int status = command->status();
  while (status < 0 && std::chrono::steady_clock::now() < until) {
    std::this_thread::sleep_for(k_pause);
    status = command->status();
  }
  if (status == 0) return {};
  const std::string why = status < 0      ? "partx has not ended after 30 s"
                          : status == 127 ? "there is no partx (util-linux)"
                                          : "partx ended with status " + std::to_string(status);
  return std::unexpected(Error(k_what, path, why));
}

}  // namespace

Result<void> add_partitions(Device& device, const std::string& path, bool by_kernel) {
  if (by_kernel) return ask_kernel(path);
  // A file system may have that mark and no partitions.
  if (has_boot_mark(device)) return ask_partx(path);
  return {};
}

}  // namespace oxbow::ublk
