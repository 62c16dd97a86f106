// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "os/ublk_abi.h"

namespace oxbow {
class Device;
}

namespace oxbow::ublk {

// Bytes that a discard frees at once: the largest clusters that the device is made of, and pages without any.
[[nodiscard]] std::uint32_t discard_granularity(const Device& device);

// What the block device is to be, with what the driver agreed to. A size that is no multiple of 512 bytes is rounded
// down: its last bytes are out of reach there.
[[nodiscard]] Parameters parameters_for(std::uint64_t size_bytes, std::uint32_t discard_granularity,
                                        bool read_only, const DeviceInfo& info) noexcept;

}  // namespace oxbow::ublk
