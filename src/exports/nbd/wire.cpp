// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/wire.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <limits>

namespace oxbow::nbd {
namespace {

// poll(2)'s limit: -1 for ever, else milliseconds rounded up, so that a wait never ends early.
int milliseconds_until(const std::optional<Wire::Clock::time_point>& until) {
  if (!until) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*until - Wire::Clock::now()).count();
  return static_cast<int>(std::clamp<std::int64_t>(left, 0, std::numeric_limits<int>::max()));
}

}  // namespace

std::ptrdiff_t SocketWire::receive(std::span<std::byte> into, Mode mode) noexcept {
  while (true) {
    ++counters_.receive_calls;
    const ssize_t got = ::recv(socket_, into.data(), into.size(), mode == Mode::wait ? 0 : MSG_DONTWAIT);
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

bool SocketWire::wait(bool to_receive, bool to_send, int event_fd,
                      std::optional<Clock::time_point> until) noexcept {
  const int events = (to_receive ? POLLIN : 0) | (to_send ? POLLOUT : 0);
  // A socket that nothing is wanted of is left out, because poll reports a hang-up in any case.
  std::array<pollfd, 2> waited{pollfd{events != 0 ? socket_ : -1, static_cast<short>(events), 0},
                               pollfd{event_fd, POLLIN, 0}};
  return ::poll(waited.data(), waited.size(), milliseconds_until(until)) != 0;
}

}  // namespace oxbow::nbd
