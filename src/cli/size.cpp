// SPDX-License-Identifier: Apache-2.0
#include "cli/size.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>

namespace oxbow {
namespace {

constexpr std::string_view k_units = "KMGTPE";
constexpr std::uint64_t k_largest = std::numeric_limits<std::int64_t>::max();

}  // namespace

std::expected<std::uint64_t, std::string> parse_size(std::string_view text) {
  std::uint64_t number = 0;
  const char* const last = text.end();
  const auto [end, error] = std::from_chars(text.begin(), last, number);
  if (error == std::errc::invalid_argument) {
    return std::unexpected(text.starts_with('-') ? "is negative"
                                                 : "is not a size; examples: 4096, 4K, 16M, 2G, 1T");
  }
  unsigned shift = 0;
  if (end != last) {
    const char upper = *end >= 'a' && *end <= 'z' ? static_cast<char>(*end - 'a' + 'A') : *end;
    const std::size_t unit = k_units.substr(0, 4).find(upper);
    if (unit == std::string_view::npos || end + 1 != last) {
      return std::unexpected("has '" + std::string(end, last) + "' after the number; units are K, M, G, T");
    }
    shift = 10 * (static_cast<unsigned>(unit) + 1);
  }
  if (error == std::errc::result_out_of_range || number > (k_largest >> shift))
    return std::unexpected("is too large");
  return number << shift;
}

std::string format_size(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{}", bytes);
  std::size_t unit = 0;
  std::uint64_t one = 1024;
  while (unit + 1 < k_units.size() && bytes / one >= 1024) {
    one <<= 10;
    ++unit;
  }
  const std::uint64_t whole = bytes / one;
  const std::uint64_t tenths = (bytes % one * 10 + one - 1) / one;  // rounded up; bytes % one is below 2^60
  if (const std::uint64_t all = whole * 10 + tenths; all < 100) {
    return fmt::format("{}.{}{}", all / 10, all % 10, k_units[unit]);
  }
  const std::uint64_t rounded = whole + (tenths != 0 ? 1 : 0);
  if (rounded == 1024 && unit + 1 < k_units.size()) return fmt::format("1.0{}", k_units[unit + 1]);
  return fmt::format("{}{}", rounded, k_units[unit]);
}

}  // namespace oxbow
