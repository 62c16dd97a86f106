// SPDX-License-Identifier: Apache-2.0
#include "targets/argument.h"

#include <fmt/format.h>

#include <charconv>

#include "formats/native/layout.h"
#include "oxbow/range.h"

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

Result<std::uint64_t> offset_in_layer(std::string_view type, std::span<const std::string> args) {
  const auto refuse = [&](std::string why) {
    return std::unexpected(
        Error(fmt::format("cannot make target {}", type), "PATH [SECTORS]", std::move(why)));
  };
  if (args.empty() || args.size() > 2)
    return refuse(fmt::format("it takes 1 or 2 arguments, not {}", args.size()));
  if (args.size() == 1) return 0;
  const auto sectors = parse_number(args[1]);
  if (!sectors || *sectors > native::k_largest_size_bytes / k_sector_bytes) {
    return refuse(fmt::format("\"{}\" is not a number of sectors", args[1]));
  }
  return *sectors * k_sector_bytes;
}

}  // namespace oxbow
