// SPDX-License-Identifier: Apache-2.0
#include "os/mount_info.h"

#include <algorithm>
#include <iterator>
#include <sstream>

namespace oxbow {

std::string without_escapes(std::string_view text) {
  const auto is_octal = [](char digit) { return digit >= '0' && digit <= '7'; };
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && std::ranges::all_of(text.substr(i + 1, 3), is_octal)) {
      out += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 3)), nullptr, 8));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<MountLine> parse_mount_info(std::string_view text) {
  constexpr std::size_t k_device = 2;
  constexpr std::size_t k_point = 4;
  std::vector<MountLine> found;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    const std::vector<std::string> fields{std::istream_iterator<std::string>(words), {}};
    // Optional fields end with a dash; the type comes after it.
    std::size_t dash = k_point + 1;
    while (dash < fields.size() && fields[dash] != "-") ++dash;
    if (dash + 2 >= fields.size()) continue;
    found.push_back({fields[k_device], without_escapes(fields[k_point]), without_escapes(fields[dash + 1]),
                     without_escapes(fields[dash + 2])});
  }
  return found;
}

}  // namespace oxbow
