// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <csignal>
#include <thread>

#include "os/fd.h"

namespace oxbow {

// Turns the signals that would end the process, SIGINT, SIGTERM and SIGHUP (unless it was ignored before), and
// SIGCHLD into something to wait for, in this thread and in those that it starts while the object lives; and ignores
// SIGPIPE and SIGXFSZ, whose errors (EPIPE, EFBIG) are seen where they happen. Make it before the first thread. Thread
// safety: the thread that made it.
class StopSignals {
 public:
  StopSignals() noexcept;
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  StopSignals(StopSignals&&) = delete;
  StopSignals& operator=(StopSignals&&) = delete;

  struct Signal {
    int number = 0;
    // Typed at the terminal, so that every process there has it.
    bool from_terminal = false;
  };
  // Returns a signal, once one came, also before the call.
  [[nodiscard]] Signal wait() const noexcept;
  // The same, and 0 when none has come within `patience`.
  [[nodiscard]] Signal wait(std::chrono::milliseconds patience) const noexcept;

 private:
  sigset_t waited_{};
  sigset_t before_{};
};

// While it lives, SIGINT or SIGTERM ends the process at once with status 1 and a sentence: the way out of a stop
// that takes too long. One that comes within the first second is dropped, since whoever wants to stop a group of
// processes often sends two. Needs a StopSignals that nobody waits for. Thread safety: the thread that made it.
class ImpatientStop {
 public:
  ImpatientStop() noexcept;
  ~ImpatientStop();
  ImpatientStop(const ImpatientStop&) = delete;
  ImpatientStop& operator=(const ImpatientStop&) = delete;
  ImpatientStop(ImpatientStop&&) = delete;
  ImpatientStop& operator=(ImpatientStop&&) = delete;

 private:
  void watch(int signals) const noexcept;

  std::chrono::steady_clock::time_point began_;
  UniqueFd over_;  // readable: the stop has come to its end
  std::thread watcher_;
};

}  // namespace oxbow
