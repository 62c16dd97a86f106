// SPDX-License-Identifier: Apache-2.0
#include "os/no_cow.h"

#include <linux/fs.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>

#include <cerrno>

namespace oxbow {

int set_no_cow(int fd) noexcept {
  struct statfs file_system{};
  if (::fstatfs(fd, &file_system) != 0) return errno;
  if (static_cast<unsigned long>(file_system.f_type) != BTRFS_SUPER_MAGIC) return 0;
  int flags = 0;
  if (::ioctl(fd, FS_IOC_GETFLAGS, &flags) != 0) return errno;
  flags |= FS_NOCOW_FL;
  return ::ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0 ? 0 : errno;
}

}  // namespace oxbow
