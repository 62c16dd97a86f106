// SPDX-License-Identifier: Apache-2.0
#include "cli/confirm.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>

namespace oxbow {

void add_yes_flag(CLI::App& command, bool& yes) {
  command.add_flag("--yes", yes,
                   "Don't ask. Needed where standard input is no terminal, for there nobody can be asked.");
}

Result<void> confirm(const std::string& what, bool yes, const char* cannot, const std::string& where) {
  if (yes) return {};
  if (::isatty(STDIN_FILENO) != 1)
    return std::unexpected(Error(cannot, where, "nobody can be asked whether it may be: --yes"));
  std::fprintf(stderr, "%sGo on? [y/N] ", what.c_str());
  std::fflush(stderr);
  std::string answer;
  std::getline(std::cin, answer);
  if (answer == "y" || answer == "Y" || answer == "yes") return {};
  return std::unexpected(Error(cannot, where, "it was not agreed to"));
}

}  // namespace oxbow
