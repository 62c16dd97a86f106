// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "control/registry.h"
#include "control/served.h"
#include "oxbow/error.h"

namespace oxbow {

class Log;

namespace control {

// The control socket of a serving process: HTTP/1.1 with JSON over a Unix socket in the run directory
// (docs/control.md has the API), and the names it has there. Runs threads of its own, a bounded number.
// Thread safety: start, stop and destruction from one thread; path() from any.
class Server {
 public:
  // Takes the names of all devices in `run_directory` and answers requests from then on. Fails when a name is
  // taken by a process that lives (the sentence tells which), and when the directory isn't this user's alone to
  // write to. Start it in the process that serves (after a fork), once clients can be served; `log` may be null.
  [[nodiscard]] static Result<std::unique_ptr<Server>> start(Served served, const std::string& run_directory,
                                                             Log* log);
  // The same with a place in a run directory that was taken before.
  [[nodiscard]] static Result<std::unique_ptr<Server>> start(Served served, Registration place, Log* log);
  ~Server();  // stops
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  Server(Server&&) = delete;
  Server& operator=(Server&&) = delete;

  // Takes the name of one more device and shows it from then on. Waits at most `patience` for others who take names.
  // One call at a time, and none beside stop().
  [[nodiscard]] Result<void> add(ServedDevice device, std::chrono::milliseconds patience);
  // No new requests; those being answered are finished, flushes included. Removes the socket and gives the
  // names up. Before the NBD server is destroyed and before devices are closed.
  void stop() noexcept;

  // The socket's path.
  [[nodiscard]] const std::string& path() const noexcept;

 private:
  struct Parts;
  explicit Server(std::unique_ptr<Parts> parts) noexcept;
  std::unique_ptr<Parts> parts_;  // null once stopped
  const std::string path_;
};

}  // namespace control
}  // namespace oxbow
