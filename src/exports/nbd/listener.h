// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "os/fd.h"
#include "oxbow/error.h"

namespace oxbow::nbd {

// A socket that clients can connect to. A Unix socket's file has mode 0600 and is removed with the listener.
// Thread safety: immutable but for accept(), which any one thread may call at a time.
class Listener {
 public:
  // `unix:PATH`, or `tcp:HOST:PORT` (an IPv6 HOST in brackets; port 0: one that is free). The protocol is
  // spoken in the clear, so TCP addresses other than loopback are refused without `allow_remote`. The socket
  // file of a process that is gone is replaced; one that is being served is refused.
  [[nodiscard]] static Result<Listener> open(std::string_view address, bool allow_remote);
  Listener(Listener&& other) noexcept;
  Listener& operator=(Listener&&) = delete;
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener();

  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  // The next client; invalid, with errno set, when there is none now.
  [[nodiscard]] UniqueFd accept() const noexcept;
  // How clients call `export_name` here: nbd+unix:///NAME?socket=PATH, PATH absolute, or nbd://HOST:PORT/NAME.
  [[nodiscard]] std::string uri(std::string_view export_name) const;

 private:
  Listener() noexcept = default;
  [[nodiscard]] static Result<Listener> open_unix(std::string_view address, std::string path);
  [[nodiscard]] static Result<Listener> open_tcp(std::string_view address, std::string_view where,
                                                 bool allow_remote);

  UniqueFd socket_;
  std::string path_;       // of a Unix socket, else empty
  struct ::stat file_{};   // its identity: only our own file is removed
  std::string host_port_;  // of TCP, as in a URI
};

}  // namespace oxbow::nbd
