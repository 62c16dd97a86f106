// SPDX-License-Identifier: Apache-2.0
#include "exports/kernel_device.h"

#include <fmt/format.h>

#include "device/device.h"
#include "os/log.h"

namespace oxbow {

Result<void> check_block_size(const Device& device, std::string_view driver, Log* log) {
  const std::uint64_t size = device.size();
  if (size < k_sector_bytes) {
    return std::unexpected(
        Error("cannot make block device", device.name(),
              fmt::format("it has {} bytes, and a block device at least {}", size, k_sector_bytes)));
  }
  if (const std::uint64_t rest = size % k_sector_bytes; rest != 0 && log != nullptr) {
    log->write(
        LogLevel::warning, driver,
        fmt::format(
            "{}: its size is no multiple of {} bytes, and its last {} are not part of the block device",
            device.name(), k_sector_bytes, rest));
  }
  return {};
}

}  // namespace oxbow
