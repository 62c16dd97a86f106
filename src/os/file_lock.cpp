// SPDX-License-Identifier: Apache-2.0
#include "os/file_lock.h"

#include <fcntl.h>

#include <cerrno>

namespace oxbow {

int lock_file(int fd, LockMode mode) noexcept {
  struct flock lock{};
  lock.l_type = static_cast<short>(mode == LockMode::none     ? F_UNLCK
                                   : mode == LockMode::shared ? F_RDLCK
                                                              : F_WRLCK);
  lock.l_whence = SEEK_SET;
  lock.l_start = 0;
  lock.l_len = 1;
  while (::fcntl(fd, F_OFD_SETLK, &lock) != 0) {
    if (errno == EACCES) return EAGAIN;
    if (errno != EINTR) return errno;
  }
  return 0;
}

}  // namespace oxbow
