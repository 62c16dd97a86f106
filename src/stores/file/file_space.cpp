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

bool FileSpace::try_fallocate(int mode, Range range, std::atomic<Known>& supported,
                              IoStatus& status) noexcept {
  if (supported.load(std::memory_order_relaxed) == Known::no) return false;
  while (::fallocate(fd_, mode, static_cast<off_t>(range.offset), static_cast<off_t>(range.length)) != 0) {
    if (errno == EINTR) continue;
    if (errno == EOPNOTSUPP || errno == ENOSYS) {
      supported.store(Known::no, std::memory_order_relaxed);
      return false;
    }
    status = IoStatus::error(errno);
    return true;
  }
  if (supported.load(std::memory_order_relaxed) == Known::nothing) {
    supported.store(Known::yes, std::memory_order_relaxed);
  }
  status = {};
  return true;
}

IoStatus FileSpace::zero_inner(Range range, ZeroMode mode) noexcept {
  IoStatus status;
  if (mode == ZeroMode::may_punch &&
      try_fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, range, punch_, status)) {
    return status;
  }
  if (try_fallocate(FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, range, zero_range_, status)) return status;
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

bool FileSpace::zeroes_fast(ZeroMode mode, std::uint64_t file_bytes) noexcept {
  if (mode == ZeroMode::allocate) return zero_range_.load(std::memory_order_relaxed) == Known::yes;
  if (!block_device_ && punch_.load(std::memory_order_relaxed) == Known::nothing) {
    constexpr std::uint64_t k_unit = 1U << 20;
    const std::uint64_t behind = (file_bytes / k_unit + 1) * k_unit;
    IoStatus status;
    (void)try_fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, {behind, k_unit}, punch_, status);
  }
  return punch_.load(std::memory_order_relaxed) == Known::yes;
}

IoStatus FileSpace::discard(Range range) noexcept {
  const Range middle = inner(range);
  if (!punches()) return {};
  if (middle.empty()) return write_zeros(fd_, range);
  IoStatus status;
  if (!try_fallocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, middle, punch_, status)) return {};
  if (status.ok()) status = write_zeros(fd_, {range.offset, middle.offset - range.offset});
  if (status.ok()) status = write_zeros(fd_, {middle.end(), range.end() - middle.end()});
  return status;
}

IoStatus FileSpace::allocate(Range range) noexcept {
  if (block_device_ || range.empty()) return {};
  IoStatus status;
  if (!try_fallocate(FALLOC_FL_KEEP_SIZE, range, allocate_, status)) return IoStatus::error(EOPNOTSUPP);
  return status;
}

}  // namespace oxbow
