// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <map>
#include <string>

#include "oxbow/error.h"

namespace oxbow {

// A child process that runs a command of the shell. Thread safety: belongs to one thread.
class ShellCommand {
 public:
  // Starts `/bin/sh -c command` with this process's environment and `variables`. It has none of this
  // process's signal handling: nothing is blocked, and SIGPIPE and SIGXFSZ do what they do by default.
  [[nodiscard]] static Result<ShellCommand> start(const std::string& command,
                                                  const std::map<std::string, std::string>& variables);

  // Passes a signal on.
  void signal(int number) const noexcept;

  // Its exit status, or 128 plus the number of the signal that ended it; -1 while it runs. Doesn't wait.
  [[nodiscard]] int status() noexcept;

 private:
  explicit ShellCommand(pid_t process) noexcept : process_(process) {}

  pid_t process_;
  int status_ = -1;
};

}  // namespace oxbow
