// SPDX-License-Identifier: Apache-2.0
#pragma once

// The words of a table line: how they are escaped, and how numbers among them are read.

#include <cstdint>
#include <expected>
#include <span>
#include <string>
#include <string_view>

#include "oxbow/error.h"

namespace oxbow {

// What separates words: blank, tab, newline, vertical tab, form feed, carriage return; in every locale.
[[nodiscard]] constexpr bool is_table_space(char c) noexcept { return c == ' ' || (c >= '\t' && c <= '\r'); }

// The word as it stands in a printed table: white space (newlines too) and backslashes have a backslash before them.
[[nodiscard]] std::string escape_argument(std::string_view argument);

// A non-negative decimal number that is the whole of `text`; no sign, no unit. The error says what is wrong with it
// as the end of a sentence ("is not a number").
[[nodiscard]] std::expected<std::uint64_t, std::string> parse_number(std::string_view text);

// The byte offset that the arguments `PATH [SECTORS]` of a target of type `type` name, 0 without SECTORS.
[[nodiscard]] Result<std::uint64_t> offset_in_layer(std::string_view type, std::span<const std::string> args);

}  // namespace oxbow
