// SPDX-License-Identifier: Apache-2.0
#include "cli/cowloop/words.h"

#include <cstdio>

#include "cli/command.h"

namespace oxbow::cowloop_commands {

int tell(const Call& call, const std::string& text) {
  auto printed = print(text);
  // Of lines before it, which nobody looked after.
  if (printed && std::ferror(stdout) != 0)
    printed = std::unexpected(Error("cannot print", "standard output", "some of it is lost"));
  if (printed) return k_done;
  complain(call, printed.error());
  return k_failed;
}

void complain(const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); }

void complain(const Call& call, const Error& error) { complain(call.program + ": " + error.text()); }

int wrong_usage(const Call& call) {
  std::fputs(call.usage.c_str(), stderr);
  return k_failed;
}

}  // namespace oxbow::cowloop_commands
