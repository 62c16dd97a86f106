// SPDX-License-Identifier: Apache-2.0
#include "stores/file/file_space.h"

#include <fcntl.h>

#include "os/transfer.h"

namespace oxbow {

Range FileSpace::inner(Range range) const noexcept {
  const std::uint64_t grain = grain_bytes_;
  const std::uint64_t start = (range.offset + grain - 1) / grain * grain;
  const std::uint64_t end = range.end() / grain * grain;
  return start < end ? Range{start, end - start} : Range{range.offset, 0};
}

bool FileSpace::try_fallocate(int mode, Range range, std::atomic<bool>& unsupported,
                              IoStatus& status) noexcept {
  if (unsupported.load(std::memory_order_relaxed)) return false;
  while (::fallocate(fd_, mode, static_cast<off_t>(range.offset), static_cast<off_t>(range.length)) != 0) {
    if (errno == EINTR) continue;
    if (errno == EOPNOTSUPP || errno == ENOSYS) {
      unsupported.store(true, std::memory_order_relaxed);
      return false;
    }
    status = IoStatus::error(errno);
    return true;
  }
  status = {};
  return true;
}

IoStatus FileSpace::zero_inner(Range range, ZeroMode mode) noexcept {
  IoStatus status;
  if (mode == ZeroMode::may_punch &&
      try_fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, range, no_punch_, status)) {
    return status;
  }
  if (try_fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, range, no_zero_range_, status)) return status;
  return write_zeros(fd_, range);
}

IoStatus FileSpace::zero(Range range, ZeroMode mode) noexcept {
  const Range middle = inner(range);
  if (middle.empty()) return write_zeros(fd_, range);
  IoStatus status = write_zeros(fd_, {range.offset, middle.offset - range.offset});
  if (status.ok()) status = zero_inner(middle, mode);
  if (status.ok()) status = write_zeros(fd_, {middle.end(), range.end() - middle.end()});
  return status;
}

IoStatus FileSpace::discard(Range range) noexcept {
  const Range middle = inner(range);
  if (!punches()) return {};
  if (middle.empty()) return write_zeros(fd_, range);
  IoStatus status;
  if (!try_fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, middle, no_punch_, status)) return {};
  if (status.ok()) status = write_zeros(fd_, {range.offset, middle.offset - range.offset});
  if (status.ok()) status = write_zeros(fd_, {middle.end(), range.end() - middle.end()});
  return status;
}

IoStatus FileSpace::allocate(Range range) noexcept {
  if (block_device_ || range.empty()) return {};
  IoStatus status;
  if (!try_fallocate(FALLOC_FL_KEEP_SIZE, range, no_allocate_, status)) return IoStatus::error(EOPNOTSUPP);
  return status;
}

}  // namespace oxbow
