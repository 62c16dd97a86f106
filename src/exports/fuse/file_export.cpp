// SPDX-License-Identifier: Apache-2.0
#include "exports/fuse/file_export.h"

#include <fcntl.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "device/device.h"
#include "exports/fuse/mount.h"
#include "exports/fuse/worker.h"
#include "os/file_identity.h"

namespace oxbow::fuse {
namespace {

// RFC 3986: everything but the unreserved characters and slashes.
std::string escaped(std::string_view text) {
  constexpr std::string_view k_plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
  constexpr std::string_view k_hex = "0123456789ABCDEF";
  std::string out;
  for (const char each : text) {
    const auto byte = static_cast<unsigned char>(each);
    if (k_plain.find(each) != std::string_view::npos) {
      out += each;
    } else {
      (out += '%').append({k_hex[byte >> 4U], k_hex[byte & 15U]});
    }
  }
  return out;
}

// Opening its own file again, the device would wait for itself.
Result<void> check_not_its_own(const Device& device, const std::string& path) {
  const auto place = identify_path(path.c_str());
  if (!place) return {};  // not there yet, or nothing that could be opened as a store
  for (const TargetLine& line : device.target()->lines()) {
    for (const ChainPart& part : line.chain) {
      const auto store = identify_path(part.store.name.c_str());
      if (store && store->same_file(*place)) {
        return std::unexpected(Error("cannot show device as file", path,
                                     "the device " + device.name() + " itself lies on that file"));
      }
    }
  }
  return {};
}

}  // namespace

struct FileExport::Parts {
  Mount mount;
  std::unique_ptr<Worker> worker;
};

FileExport::FileExport(std::unique_ptr<Parts> parts)
    : parts_(std::move(parts)), uri_("file://" + escaped(parts_->mount.path())) {}

FileExport::~FileExport() {
  // Whoever wants to know about errors has called it before.
  (void)stop();
}

Result<std::unique_ptr<FileExport>> FileExport::start(Device& device, const std::string& path,
                                                      const Options& options) {
  if (auto other = check_not_its_own(device, path); !other) return std::unexpected(std::move(other.error()));
  auto mount = Mount::make(path, options.read_only || !device.writable());
  if (!mount) return std::unexpected(std::move(mount.error()));
  const UniqueFd mounted = mount->take_descriptor();
  UniqueFd fuse(::fcntl(mounted.get(), F_DUPFD_CLOEXEC, options.above + 1));
  if (!fuse.valid()) return std::unexpected(Error::from_errno("cannot show device as file", path, errno));
  auto parts = std::make_unique<Parts>(Parts{std::move(*mount), nullptr});
  auto worker = Worker::start(
      device, std::move(fuse),
      {.read_only = options.read_only, .flush_at_close = options.flush_at_close, .log = options.log});
  if (!worker) return std::unexpected(std::move(worker.error()));
  parts->worker = std::move(*worker);
  return std::unique_ptr<FileExport>(new FileExport(std::move(parts)));
}

std::uint64_t FileExport::opens() const noexcept { return parts_->worker->opens(); }

Result<void> FileExport::stop() {
  if (parts_ == nullptr) return {};
  // First: until it is gone, the kernel may have to ask for something.
  parts_->worker->expect_end();
  auto gone = parts_->mount.take_away();
  parts_->worker->stop();
  parts_.reset();
  return gone;
}

}  // namespace oxbow::fuse
