// SPDX-License-Identifier: Apache-2.0
#include "targets/argument.h"

#include <charconv>

namespace oxbow {

std::string escape_argument(std::string_view argument) {
  std::string escaped;
  escaped.reserve(argument.size());
  for (const char c : argument) {
    if (c == '\\' || is_table_space(c)) escaped.push_back('\\');
    escaped.push_back(c);
  }
  return escaped;
}

std::expected<std::uint64_t, std::string> parse_number(std::string_view text) {
  if (text.empty()) return std::unexpected("is empty");
  const bool negative = text.front() == '-';
  const std::string_view digits = negative ? text.substr(1) : text;
  std::uint64_t value = 0;
  const char* const last = digits.end();
  const auto [end, error] = std::from_chars(digits.begin(), last, value);
  if (error == std::errc::invalid_argument) return std::unexpected("is not a number");
  if (end != last) return std::unexpected("has '" + std::string(end, last) + "' after the number");
  if (negative) return std::unexpected("is negative");
  if (error == std::errc::result_out_of_range) return std::unexpected("is too large");
  return value;
}

}  // namespace oxbow
