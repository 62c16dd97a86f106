// SPDX-License-Identifier: Apache-2.0
#include "exports/loop/loop_export.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "device/device.h"
#include "exports/fuse/file_export.h"
#include "os/apart.h"
#include "os/fd.h"
#include "os/log.h"
#include "os/loop_device.h"

namespace oxbow::loop {
namespace {

constexpr auto k_what = "cannot make block device";

}  // namespace

struct LoopExport::Parts {
  std::string file;
  Log* log;
  std::unique_ptr<fuse::FileExport> shown;  // null once stopped
  LoopDevice device;
};

LoopExport::LoopExport(std::unique_ptr<Parts> parts) noexcept : parts_(std::move(parts)) {}

LoopExport::~LoopExport() {
  // Whoever wants to know about errors has called it before.
  (void)stop({});
}

Result<std::unique_ptr<LoopExport>> LoopExport::start(Device& device, const std::string& file,
                                                      const Options& options) {
  if (auto right = check_block_size(device, "loop", options.log); !right)
    return std::unexpected(std::move(right.error()));
  const bool read_only = options.read_only || !device.writable();
  // Of a process that was killed the kernel closes the descriptor with the largest number first. What answers the file
  // must go before the block device is closed: that waits for requests, and would wait for ever.
  UniqueFd place(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  if (!place.valid()) return std::unexpected(Error::from_errno(k_what, "/dev/null", errno));
  auto shown = fuse::FileExport::start(
      device, file,
      {.read_only = read_only, .log = options.log, .flush_at_close = false, .above = place.get()});
  if (!shown) return std::unexpected(std::move(shown.error()));
  auto made = LoopDevice::make(file, std::move(place), {.read_only = read_only, .name = device.name()});
  if (!made) return std::unexpected(std::move(made.error()));
  return std::unique_ptr<LoopExport>(
      new LoopExport(std::make_unique<Parts>(Parts{file, options.log, std::move(*shown), std::move(*made)})));
}

const std::string& LoopExport::path() const noexcept { return parts_->device.path(); }

Result<void> LoopExport::grow() {
  // The kernel takes the size that it knows of the file, and asks for it here.
  int missing = 0;
  const auto ask = [&] {
    struct ::stat ignored{};
    missing = ::stat(parts_->file.c_str(), &ignored) == 0 ? 0 : errno;
  };
  const int error = run_apart_before(ask, [] {});
  if (error != 0 || missing != 0)
    return std::unexpected(
        Error::from_errno("cannot resize block device", path(), error != 0 ? error : missing));
  return parts_->device.grow();
}

Result<void> LoopExport::stop(UniqueFd claim) {
  if (parts_->shown == nullptr) return {};
  if (claim.valid()) parts_->device.hold(std::move(claim));
  auto written = parts_->device.sync();
  if (!parts_->device.release() && parts_->log != nullptr) {
    parts_->log->write(LogLevel::warning, "loop",
                       path() + ": it is in use, and answers with errors until it is not");
  }
  auto gone = std::exchange(parts_->shown, nullptr)->stop();
  return written ? gone : written;
}

}  // namespace oxbow::loop
