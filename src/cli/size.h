// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <string_view>

namespace oxbow {

// Bytes from words like 4096, 4K, 16M, 2G, 1T (powers of 1024, either case), below 2^63. The error says what is
// wrong with it as the end of a sentence ("is not a size").
[[nodiscard]] std::expected<std::uint64_t, std::string> parse_size(std::string_view text);

// Bytes for people: "512", "4.0K", "1.5G"; rounded up, as du and ls have it.
[[nodiscard]] std::string format_size(std::uint64_t bytes);

}  // namespace oxbow
