// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "os/fd.h"
#include "oxbow/error.h"

namespace oxbow::nbd {

// A socket that clients can connect to. A Unix socket's file that it made has mode 0600 and is removed with it.
// Thread safety: immutable but for accept(), which any one thread may call at a time.
class Listener {
 public:
  // `unix:PATH`, or `tcp:HOST:PORT` (an IPv6 HOST in brackets; port 0: one that is free): one socket, or for a
  // HOST of several addresses one for each of them, all at one port. TCP addresses other than loopback are
  // refused unless `anywhere`: they are for those who encrypt, or know that they don't. The socket file of a
  // process that is gone is replaced; one that is being served is refused.
  [[nodiscard]] static Result<std::vector<Listener>> open(std::string_view address, bool anywhere);
  // A listening stream socket that somebody else made, Unix or TCP; its file is left alone. The same rules.
  [[nodiscard]] static Result<Listener> adopt(UniqueFd socket, bool anywhere);
  Listener(Listener&& other) noexcept;
  Listener& operator=(Listener&&) = delete;
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;
  ~Listener();

  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  // The next client; invalid, with errno set, when there is none now.
  [[nodiscard]] UniqueFd accept() const noexcept;
  // How clients call `export_name` here: nbd+unix:///NAME?socket=PATH, PATH absolute, or nbd://HOST:PORT/NAME;
  // with `tls`, nbds instead of nbd.
  [[nodiscard]] std::string uri(std::string_view export_name, bool tls = false) const;

 private:
  Listener() noexcept = default;
  [[nodiscard]] static Result<Listener> open_unix(std::string_view address, const std::string& path);
  [[nodiscard]] static Result<std::vector<Listener>> open_tcp(std::string_view address,
                                                              std::string_view where, bool anywhere);

  UniqueFd socket_;
  std::string path_;  // of a Unix socket, absolute, else empty
  bool made_file_ = false;
  struct ::stat file_{};   // its identity: only our own file is removed
  std::string host_port_;  // of TCP, as in a URI
};

}  // namespace oxbow::nbd
