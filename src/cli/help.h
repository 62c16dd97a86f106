// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "cli/cli11.h"

namespace oxbow {

// Prints --help in the words of the manual: the synopsis, then each argument and option with its text below it.
// `synopsis` is what comes after the command's name.
[[nodiscard]] std::shared_ptr<CLI::FormatterBase> make_help_formatter(std::string synopsis);

}  // namespace oxbow
