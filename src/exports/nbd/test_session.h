// SPDX-License-Identifier: Apache-2.0
#pragma once

// For the tests of this folder: a client's end of a connection, with raw bytes.

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <array>
#include <atomic>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "exports/nbd/protocol.h"
#include "exports/nbd/test_device.h"
#include "exports/nbd/transmission.h"
#include "exports/nbd/wire.h"
#include "os/fd.h"

namespace oxbow::nbd {

using Bytes = std::vector<std::byte>;

inline Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// A call whose failure means that the test itself cannot run.
inline void must(int result) {
  if (result != 0) throw std::system_error(errno, std::generic_category(), "test session");
}

// Bytes that differ from place to place and from seed to seed.
inline Bytes pattern(std::size_t length, unsigned seed) {
  Bytes out(length);
  std::uint32_t state = seed * 2654435761U + 1;
  for (std::byte& each : out) {
    state = state * 1664525U + 1013904223U;
    each = static_cast<std::byte>(state >> 24U);
  }
  return out;
}

inline Bytes request(Command command, std::uint64_t cookie, std::uint64_t offset, std::uint32_t length,
                     std::uint16_t flags = 0) {
  const auto encoded = encode_request({flags, command, cookie, offset, length});
  return {encoded.begin(), encoded.end()};
}

inline Bytes simple_reply(std::uint64_t cookie, std::uint32_t error = 0) {
  Bytes out;
  put(out, k_simple_reply_magic);
  put(out, error);
  put(out, cookie);
  return out;
}

// The client's side of the handshake: flags, then EXPORT_NAME for the default export.
inline Bytes hello() {
  Bytes out;
  put(out, std::uint32_t{3});
  put(out, k_option_magic);
  put(out, std::uint32_t{1});
  put(out, std::uint32_t{0});
  return out;
}

// The client's socket. Thread safety: none.
class RawClient {
 public:
  explicit RawClient(UniqueFd socket) : socket_(std::move(socket)) {
    const timeval limit{20, 0};
    must(::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)));
    must(::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)));
  }

  // Whether all of it went out.
  bool send(const Bytes& bytes) const {
    std::size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t sent = ::send(socket_.get(), bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR)
        continue;  // so does the end of an io_uring, while there is a time limit
      if (sent <= 0) return false;
      done += static_cast<std::size_t>(sent);
    }
    return true;
  }
  // Fewer bytes only when the server ended the connection, or didn't answer for 20 seconds.
  [[nodiscard]] Bytes receive(std::size_t length) const {
    Bytes out(length);
    std::size_t done = 0;
    while (done < length) {
      const ssize_t got = ::recv(socket_.get(), out.data() + done, length - done, 0);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      done += static_cast<std::size_t>(got);
    }
    out.resize(done);
    return out;
  }
  [[nodiscard]] bool at_end() const {
    std::byte more{};
    ssize_t got = 0;
    do {
      got = ::recv(socket_.get(), &more, 1, 0);
    } while (got < 0 && errno == EINTR);
    return got == 0;
  }
  // Whether nothing comes for a while.
  [[nodiscard]] bool quiet(int milliseconds = 50) const {
    pollfd waited{socket_.get(), POLLIN, 0};
    return ::poll(&waited, 1, milliseconds) == 0;
  }
  void stop_sending() const { must(::shutdown(socket_.get(), SHUT_WR)); }
  void close() { socket_.reset(); }
  [[nodiscard]] int fd() const { return socket_.get(); }

 private:
  UniqueFd socket_;
};

inline std::pair<UniqueFd, UniqueFd> socket_pair() {
  int fds[2] = {-1, -1};
  must(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
  return {UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// A client in the transmission phase with a device. What is sent before start() is there when the server
// looks first.
// Thread safety: none.
class Session {
 public:
  explicit Session(TestDevice& device, bool read_only = false, const TransmissionLimits& limits = {},
                   bool start_now = true)
      : Session(device.device, {}, {.read_only = read_only, .limits = limits, .start_now = start_now}) {}

  struct Options {
    bool read_only = false;
    TransmissionLimits limits{};
    bool start_now = true;
    int send_buffer_bytes = 0;  // of the server's socket, if not 0
  };
  // What was negotiated but for the export.
  Session(Device& device, const Negotiated& negotiated, const Options& options)
      : Session(device, negotiated, options, socket_pair()) {
    const int bytes = options.send_buffer_bytes;
    if (bytes != 0) must(::setsockopt(server_.get(), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)));
    if (options.start_now) start();
  }
  Session(Device& device, const Negotiated& negotiated) : Session(device, negotiated, Options{}) {}
  ~Session() { finish(); }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;
  Session(Session&&) = delete;
  Session& operator=(Session&&) = delete;

  void start() {
    thread_ = std::thread([this] { serve(); });
  }
  // The client goes away; returns why the server says that it ended.
  std::string finish() {
    client.close();
    if (thread_.joinable()) thread_.join();
    return why_;
  }
  // The server ends by itself.
  std::string join() {
    if (thread_.joinable()) thread_.join();
    return why_;
  }
  // As a server that stops.
  void stop() {
    stopping_ = true;
    (void)::eventfd_write(stop_.get(), 1);
  }
  [[nodiscard]] const WireCounters& counters() const { return counters_; }  // after finish() or join()

  // Sends and returns as many bytes as `expected` has, for comparison.
  [[nodiscard]] Bytes talk(const Bytes& sent, std::size_t reply_bytes) const {
    if (!client.send(sent)) return {};
    return client.receive(reply_bytes);
  }

 private:
  Session(Device& device, const Negotiated& negotiated, const Options& options,
          std::pair<UniqueFd, UniqueFd> pair)
      : client(std::move(pair.first)),
        server_(std::move(pair.second)),
        export_{.name = "", .device = &device, .read_only = options.read_only},
        negotiated_(negotiated),
        limits_(options.limits) {
    negotiated_.served = &export_;
  }

  // What a worker does, for one connection.
  void serve() {
    SocketWire wire(server_.get());
    {
      Queue queue;
      Transmission transmission(wire, queue, negotiated_, limits_);
      bool readable = true;
      while (true) {
        if (stopping_.exchange(false)) {
          transmission.refuse_requests();
          readable = true;
        }
        const Interest wanted = transmission.step(readable);
        if (wanted.ended) break;
        readable = wanted.again;
        if (queue.poll() || wanted.again) continue;
        const int events = (wanted.receive ? POLLIN : 0) | (wanted.send ? POLLOUT : 0);
        std::array<pollfd, 3> waited{pollfd{events == 0 ? -1 : server_.get(), static_cast<short>(events), 0},
                                     pollfd{queue.event_fd(), POLLIN, 0}, pollfd{stop_.get(), POLLIN, 0}};
        (void)::poll(waited.data(), waited.size(), -1);
        eventfd_t ignored = 0;
        (void)::eventfd_read(stop_.get(), &ignored);
        readable = (waited[0].revents & ~POLLOUT) != 0;
      }
      why_ = transmission.why_ended();
    }
    counters_ = wire.counters();
    (void)::shutdown(server_.get(), SHUT_RDWR);
  }

 public:
  RawClient client;

 private:
  UniqueFd server_;
  Export export_;
  Negotiated negotiated_;
  TransmissionLimits limits_;
  std::atomic<bool> stopping_{false};
  UniqueFd stop_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};  // readable: look at stopping_
  std::string why_;
  WireCounters counters_;
  std::thread thread_;
};

}  // namespace oxbow::nbd
