// SPDX-License-Identifier: Apache-2.0
#pragma once

// How cowloop's commands talk.

#include <string>

#include "cli/cowloop/command.h"
#include "oxbow/error.h"

namespace oxbow::cowloop_commands {

// Prints `text`, whole lines, to stdout; returns how the command ends that has no more to do.
[[nodiscard]] int tell(const Call& call, const std::string& text);
// Prints a line to stderr, as it is.
void complain(const std::string& line);
// Prints "PROGRAM: what: where: why" to stderr: what the old commands had no words for.
void complain(const Call& call, const Error& error);
// Prints the usage to stderr.
[[nodiscard]] int wrong_usage(const Call& call);

}  // namespace oxbow::cowloop_commands
