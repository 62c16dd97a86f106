// SPDX-License-Identifier: Apache-2.0
#include "os/boot_id.h"

#include <charconv>
#include <fstream>
#include <string>

namespace oxbow {

std::array<std::uint8_t, 16> boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string text;
  std::getline(file, text);
  std::erase(text, '-');
  std::array<std::uint8_t, 16> id{};
  if (text.size() != 2 * id.size()) return {};
  for (std::size_t i = 0; i < id.size(); ++i) {
    const char* const digits = text.data() + (2 * i);
    if (std::from_chars(digits, digits + 2, id[i], 16).ptr != digits + 2) return {};
  }
  return id;
}

}  // namespace oxbow
