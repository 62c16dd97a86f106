// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the load generator and the bare server share: numbers in network order, a Unix socket that blocks, and
// the constants of the protocol that they use.

#include <endian.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>

namespace oxbow::bench {

inline constexpr std::uint64_t k_greeting_magic = 0x4e42444d41474943;
inline constexpr std::uint64_t k_option_magic = 0x49484156454F5054;
inline constexpr std::uint64_t k_option_reply_magic = 0x0003e889045565a9;
inline constexpr std::uint32_t k_request_magic = 0x25609513;
inline constexpr std::uint32_t k_reply_magic = 0x67446698;
inline constexpr std::uint32_t k_option_go = 7;
inline constexpr std::uint32_t k_ack = 1;
inline constexpr std::uint32_t k_info = 3;
inline constexpr std::uint16_t k_read = 0;
inline constexpr std::uint16_t k_write = 1;
inline constexpr std::uint16_t k_disconnect = 2;
inline constexpr std::size_t k_request_bytes = 28;
inline constexpr std::size_t k_reply_bytes = 16;

[[noreturn]] inline void fail(const std::string& what) { throw std::runtime_error(what); }

inline std::uint16_t big(std::uint16_t value) { return htobe16(value); }
inline std::uint32_t big(std::uint32_t value) { return htobe32(value); }
inline std::uint64_t big(std::uint64_t value) { return htobe64(value); }

// Writes a number in network order; returns what lies behind it.
template <typename T>
std::byte* put(std::byte* to, T value) {
  const T ordered = big(value);
  std::memcpy(to, &ordered, sizeof ordered);
  return to + sizeof ordered;
}

// The number in network order that begins at `from`.
template <typename T>
T take(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return big(value);
}

inline sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) fail("the path is too long for a socket: " + path);
  path.copy(address.sun_path, path.size());
  return address;
}

// A stream socket that blocks. Thread safety: none.
class Socket {
 public:
  explicit Socket(int fd) noexcept : fd_(fd) {}
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Socket() {
    if (fd_ >= 0) ::close(fd_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  Socket& operator=(Socket&&) = delete;

  static Socket connected(const std::string& path) {
    Socket socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_un address = address_of(path);
    if (::connect(socket.fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      fail("cannot connect: " + path + ": " + std::strerror(errno));
    return socket;
  }

  [[nodiscard]] int fd() const noexcept { return fd_; }

  void send(std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0) fail(std::string("cannot send: ") + std::strerror(errno));
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
    }
  }
  // 0 at the end of the stream.
  std::size_t receive_some(std::span<std::byte> into) const {
    const ssize_t got = ::recv(fd_, into.data(), into.size(), 0);
    if (got < 0) fail(std::string("cannot receive: ") + std::strerror(errno));
    return static_cast<std::size_t>(got);
  }
  std::size_t receive(std::span<std::byte> into) const {
    const std::size_t got = receive_some(into);
    if (got == 0) fail("the other side closed the connection");
    return got;
  }
  void receive_all(std::span<std::byte> into) const {
    while (!into.empty()) into = into.subspan(receive(into));
  }

 private:
  int fd_;
};

}  // namespace oxbow::bench
