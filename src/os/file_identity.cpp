// SPDX-License-Identifier: Apache-2.0
#include "os/file_identity.h"

#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstddef>

namespace oxbow {
namespace {

using std::size_t;  // which linux/fs.h uses and does not declare

std::expected<FileIdentity, int> from_stat(const struct stat& info) noexcept {
  if (S_ISDIR(info.st_mode)) return std::unexpected(EISDIR);
  FileIdentity identity;
  if (S_ISBLK(info.st_mode)) {
    identity.dev = info.st_rdev;
    identity.block_device = true;
    return identity;
  }
  if (!S_ISREG(info.st_mode)) return std::unexpected(EINVAL);
  identity.dev = info.st_dev;
  identity.inode = info.st_ino;
  identity.mtime_ns = info.st_mtim.tv_sec * 1'000'000'000 + info.st_mtim.tv_nsec;
  identity.size_bytes = static_cast<std::uint64_t>(info.st_size);
  return identity;
}

}  // namespace

std::expected<FileIdentity, int> identify_file(int fd) noexcept {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return std::unexpected(errno);
  std::expected<FileIdentity, int> identity = from_stat(info);
  if (identity && identity->block_device && ::ioctl(fd, BLKGETSIZE64, &identity->size_bytes) != 0) {
    return std::unexpected(errno);
  }
  return identity;
}

std::expected<FileIdentity, int> identify_path(const char* path) noexcept {
  struct stat info{};
  if (::stat(path, &info) != 0) return std::unexpected(errno);
  return from_stat(info);
}

}  // namespace oxbow
