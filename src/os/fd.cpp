// SPDX-License-Identifier: Apache-2.0
#include "os/fd.h"

#include <unistd.h>

namespace oxbow {

void UniqueFd::reset(int fd) noexcept {
  // Linux releases the descriptor even when close() reports an error, and what it reports is a write error
  // that a barrier has already told of; so there is nothing to do about it here.
  if (fd_ >= 0) (void)::close(fd_);
  fd_ = fd;
}

}  // namespace oxbow
