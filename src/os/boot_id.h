// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

namespace oxbow {

// What the kernel calls the boot that it is running: another number after every boot. All zero where it isn't told.
[[nodiscard]] std::array<std::uint8_t, 16> boot_id();

}  // namespace oxbow
