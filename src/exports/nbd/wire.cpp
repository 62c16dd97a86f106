// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/wire.h"

#include <sys/ioctl.h>
#include <sys/socket.h>

#include <cerrno>

namespace oxbow::nbd {
std::ptrdiff_t SocketWire::receive(std::span<std::byte> into) noexcept {
  while (true) {
    ++counters_.receive_calls;
    const ssize_t got = ::recv(socket_, into.data(), into.size(), MSG_DONTWAIT);
    if (got >= 0) return got;
    if (errno != EINTR) return -errno;
  }
}

std::ptrdiff_t SocketWire::send(std::span<const iovec> pieces) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());  // the C interface lacks the const; sendmsg only reads
  message.msg_iovlen = pieces.size();
  while (true) {
    ++counters_.send_calls;
    const ssize_t sent = ::sendmsg(socket_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0) return sent;
    if (errno != EINTR) return -errno;
  }
}

std::size_t SocketWire::available() noexcept {
  int bytes = 0;
  if (::ioctl(socket_, FIONREAD, &bytes) != 0 || bytes < 0) return 0;
  return static_cast<std::size_t>(bytes);
}

}  // namespace oxbow::nbd
