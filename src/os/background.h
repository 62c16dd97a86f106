// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "os/fd.h"
#include "oxbow/error.h"

namespace oxbow {

// The two halves of a process that goes on in the background: the parent waits until the child says that it is
// ready, or has ended. Thread safety: belongs to the thread that made it.
class Background {
 public:
  // Forks, so there must be no other thread; the child has a session of its own.
  [[nodiscard]] static Result<Background> fork();

  [[nodiscard]] bool is_parent() const noexcept { return child_ != 0; }

  // The parent's: what the child passed to ready(). Without a value the child has ended with the exit status
  // 1 or more, and said why on standard error; any other end is an error.
  struct Outcome {
    bool ready = false;
    std::string text;
    int status = 0;
  };
  [[nodiscard]] Result<Outcome> wait();
  // The parent's: asks the child to end.
  void end() const noexcept;

  // The child's: standard input and output become /dev/null, the descriptor `errors` (/dev/null when it is -1)
  // standard error, the working directory /.
  [[nodiscard]] Result<void> leave(int errors);
  // The child's, at most once: lets the parent go. `text` is not empty.
  [[nodiscard]] Result<void> ready(std::string_view text);

 private:
  Background(UniqueFd pipe, pid_t child) noexcept : pipe_(std::move(pipe)), child_(child) {}

  UniqueFd pipe_;  // from the child to the parent
  pid_t child_;    // 0 in the child
};

}  // namespace oxbow
