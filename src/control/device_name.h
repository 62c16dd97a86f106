// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace oxbow::control {

constexpr std::size_t k_longest_device_name = 64;

// Whether a device's name may have that character: then it can be part of a file's name and of a URI.
[[nodiscard]] bool fits_device_name(char letter) noexcept;
// Why `name` cannot be a device's name; empty when it can.
[[nodiscard]] std::string wrong_device_name(std::string_view name);

}  // namespace oxbow::control
