// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <csignal>

namespace oxbow {

// Turns SIGINT and SIGTERM, which would end the process, into something to wait for, in this thread and in those that
// it starts while the object lives; and ignores SIGPIPE and SIGXFSZ, whose errors (EPIPE, EFBIG) are seen where they
// happen. Make it before the first thread. Thread safety: the thread that made it.
class StopSignals {
 public:
  StopSignals() noexcept;
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  StopSignals(StopSignals&&) = delete;
  StopSignals& operator=(StopSignals&&) = delete;

  // Returns the signal, once one came, also before the call.
  int wait() const noexcept;

 private:
  sigset_t waited_{};
  sigset_t before_{};
};

}  // namespace oxbow
