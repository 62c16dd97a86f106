// SPDX-License-Identifier: Apache-2.0
#include "stores/file/description_pool.h"

#include <fcntl.h>

#include <cstdio>

namespace oxbow {

DescriptionPool::Lease DescriptionPool::take() noexcept {
  for (Slot& slot : slots_) {
    if (slot.busy.load(std::memory_order_relaxed) || slot.busy.exchange(true, std::memory_order_acquire))
      continue;
    if (!slot.fd.valid()) slot.fd = open_again();
    return {&slot.busy, slot.fd.get()};
  }
  return Lease(open_again());
}

// The same file whatever its name is by now.
UniqueFd DescriptionPool::open_again() const noexcept {
  std::array<char, 32> path{};
  (void)std::snprintf(path.data(), path.size(), "/proc/self/fd/%d", fd_);
  const int flags = ::fcntl(fd_, F_GETFL);
  if (flags < 0) return {};
  return UniqueFd(::open(path.data(), (flags & (O_ACCMODE | O_DIRECT)) | O_CLOEXEC | O_NOCTTY));
}

}  // namespace oxbow
