// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "oxbow/error.h"

namespace oxbow {

// The service manager that wants to know when this process is ready, as sd_notify(3) documents it: datagrams of
// lines like READY=1 to the Unix socket that NOTIFY_SOCKET names; a name that starts with @ is an abstract one.
// Thread safety: a value; tell() from any thread.
class ServiceManager {
 public:
  // Takes NOTIFY_SOCKET out of the environment, so that children don't report for this process. Call it
  // before there are threads.
  [[nodiscard]] static ServiceManager from_environment();

  // Sends `state`, lines without a line feed at the end; waits at most 5 seconds for room. Success without
  // doing anything when nobody wants to know.
  [[nodiscard]] Result<void> tell(std::string_view state) const;

 private:
  std::string socket_;  // empty: nobody
};

}  // namespace oxbow
