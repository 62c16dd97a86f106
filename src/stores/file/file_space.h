// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

#include "oxbow/io_status.h"
#include "oxbow/range.h"
#include "stores/store.h"

namespace oxbow {

// The room of a file or block device: making holes, zeros and reservations with fallocate(2), and what to do
// where the file system or device can't; what it cannot is remembered and not asked again. All calls are
// synchronous. Thread safety: any thread.
class FileSpace {
 public:
  // `fd` is borrowed. `grain_bytes` is what fallocate wants ranges aligned to: 1 for files, the logical block
  // for devices.
  FileSpace(int fd, bool block_device, std::uint32_t grain_bytes) noexcept
      : fd_(fd), block_device_(block_device), grain_bytes_(grain_bytes) {}

  // The range reads as zeros afterwards: by fallocate, where that isn't supported by writing zeros.
  [[nodiscard]] IoStatus zero(Range range, ZeroMode mode) noexcept;
  // Punches a hole, of a block device as far as whole logical blocks go, and writes zeros beside it. Where
  // punching isn't supported nothing happens and that is a success.
  [[nodiscard]] IoStatus discard(Range range) noexcept;
  // Reserves room. Always there on block devices. EOPNOTSUPP where the file system can't: writing over the
  // range instead, as posix_fallocate(3) does, would race with writes to it.
  [[nodiscard]] IoStatus allocate(Range range) noexcept;

  // Whether punching works, as far as is known.
  [[nodiscard]] bool punches() const noexcept { return punch_.load(std::memory_order_relaxed) != Known::no; }
  // Whether zero() with `mode` is known to do without writing zeros, but for the edges. Of a file that is
  // `file_bytes` long punching is tried once, behind its end, where it changes nothing.
  [[nodiscard]] bool zeroes_fast(ZeroMode mode, std::uint64_t file_bytes) noexcept;

 private:
  // What is known of a way of calling fallocate.
  enum class Known : std::uint8_t { nothing, yes, no };

  // The part of the range that fallocate accepts; perhaps empty.
  [[nodiscard]] Range inner(Range range) const noexcept;
  [[nodiscard]] IoStatus zero_inner(Range range, ZeroMode mode) noexcept;
  // Whether `mode` is supported as far as known; `status` has the outcome if so.
  [[nodiscard]] bool try_fallocate(int mode, Range range, std::atomic<Known>& supported,
                                   IoStatus& status) noexcept;

  int fd_;
  bool block_device_;
  std::uint32_t grain_bytes_;
  std::atomic<Known> punch_{Known::nothing};
  std::atomic<Known> zero_range_{Known::nothing};
  std::atomic<Known> allocate_{Known::nothing};
};

}  // namespace oxbow
