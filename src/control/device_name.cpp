// SPDX-License-Identifier: Apache-2.0
#include "control/device_name.h"

#include <algorithm>

namespace oxbow::control {

bool fits_device_name(char letter) noexcept {
  return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
         (letter >= '0' && letter <= '9') || letter == '.' || letter == '_' || letter == '-';
}

std::string wrong_device_name(std::string_view name) {
  if (name.empty()) return "a name is not empty";
  if (name.size() > k_longest_device_name) return "a name has at most 64 characters";
  if (!std::ranges::all_of(name, fits_device_name)) return "a name has only letters, digits and ._-";
  if (name.front() == '.' || name.front() == '-') return "a name does not start with . or -";
  return {};
}

}  // namespace oxbow::control
