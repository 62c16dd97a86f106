// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "os/fd.h"
#include "oxbow/error.h"

namespace oxbow {

class Device;
class Log;

// Whether the device is large enough to be a block device. The log, which may be null, hears of a part of a sector at
// its end, which is out of reach there; `driver` ("loop") is who says so.
[[nodiscard]] Result<void> check_block_size(const Device& device, std::string_view driver, Log* log);

// A device as a block device of the kernel, /dev/NAME, made by a class below and answered by threads of its own.
// Thread safety: one thread at a time, and none that serves: what is asked of the kernel may send requests back to the
// device.
class KernelDevice {
 public:
  KernelDevice() noexcept = default;
  // Stops.
  virtual ~KernelDevice() = default;
  KernelDevice(const KernelDevice&) = delete;
  KernelDevice& operator=(const KernelDevice&) = delete;
  KernelDevice(KernelDevice&&) = delete;
  KernelDevice& operator=(KernelDevice&&) = delete;

  // "/dev/loop3". The same until the destruction.
  [[nodiscard]] virtual const std::string& path() const noexcept = 0;
  // Why the size can't change while it is there; empty when it can.
  [[nodiscard]] virtual std::string fixed_size() const = 0;
  // Makes the device's size the block device's, once it has grown.
  [[nodiscard]] virtual Result<void> grow() = 0;
  // Writes out what the kernel holds back, takes the block device away, also when it is in use, and ends what answers
  // it: whoever has it open gets errors from now on. The error is what could not be written, or why it is still
  // there. Does nothing the second time. `claim` is invalid, or path() opened with O_EXCL, which keeps others from
  // mounting it: it is closed only when it keeps the kernel from going on.
  [[nodiscard]] virtual Result<void> stop(UniqueFd claim) = 0;
};

}  // namespace oxbow
