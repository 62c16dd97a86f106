// SPDX-License-Identifier: Apache-2.0
#pragma once

// Tables as text: lines of START LENGTH TARGET ARGS in 512-byte sectors, as dmsetup has them.
//
// Words are separated by white space. A backslash takes away the meaning of the character after it, white space,
// newline and backslash included, so that any path can be written. Blank lines are skipped, and lines whose first
// character other than white space is `#`. Lines are in order: each starts where the one before it ends, the first
// one at 0.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "oxbow/error.h"

namespace oxbow {

// One line of a table. Thread safety: a value.
struct TableLine {
  unsigned number = 0;       // of the line in its text, from 1
  std::uint64_t start = 0;   // in sectors
  std::uint64_t length = 0;  // in sectors, never 0
  std::string type;
  std::vector<std::string> args;  // without escapes

  friend bool operator==(const TableLine&, const TableLine&) = default;
};

// At least one line, adding up to less than 2^63 bytes. The errors name `source` and the line.
[[nodiscard]] Result<std::vector<TableLine>> parse_table(std::string_view text, std::string_view source);

// The table as text that parse_table reads back, a newline after each line. Words that are empty cannot be printed
// and must not occur.
[[nodiscard]] std::string print_table(std::span<const TableLine> lines);

// The arguments of a line, each after a blank but the first.
[[nodiscard]] std::string print_arguments(const TableLine& line);

// "SOURCE line N": where in a table something is wrong.
[[nodiscard]] std::string table_place(std::string_view source, unsigned number);

}  // namespace oxbow
