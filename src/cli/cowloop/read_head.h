// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <expected>
#include <string>

#include "formats/cowloop/head.h"

namespace oxbow::cowloop_commands {

// Why the head of a file can't be had. Thread safety: a value.
struct HeadError {
  enum class Kind { not_opened, not_read, no_cowfile, unknown_version };
  Kind kind;
  std::string why;  // the system's words; of `no_cowfile` what goes in parentheses
};

// The head of the cowfile at `path`, whatever its state and whoever has it in use. Writes and locks nothing.
[[nodiscard]] std::expected<cowloop::Head, HeadError> read_head(const std::string& path);

// What cowlist and cowrepair print of an error, without the line's end.
[[nodiscard]] std::string text_of(const HeadError& error, const std::string& path);

}  // namespace oxbow::cowloop_commands
