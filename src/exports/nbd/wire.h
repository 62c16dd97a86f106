// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace oxbow::nbd {

// How often the kernel was asked; for tests of batching and for people who look at speed.
struct WireCounters {
  std::uint64_t receive_calls = 0;
  std::uint64_t send_calls = 0;
};

// The stream to one client: a socket, or a test's bytes. Thread safety: belongs to the connection's thread.
class Wire {
 public:
  enum class Mode : std::uint8_t { wait, do_not_wait };
  using Clock = std::chrono::steady_clock;

  Wire() noexcept = default;
  virtual ~Wire() = default;
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;
  Wire(Wire&&) = delete;
  Wire& operator=(Wire&&) = delete;

  // One call to the kernel. More than 0: bytes received; 0: the client has ended its side; below 0: -errno,
  // of which -EAGAIN only says that there is nothing now (Mode::do_not_wait) and to ask again.
  [[nodiscard]] virtual std::ptrdiff_t receive(std::span<std::byte> into, Mode mode) noexcept = 0;
  // One call that never waits: bytes sent (maybe not all), or -errno, of which -EAGAIN only says that there
  // is no room.
  [[nodiscard]] virtual std::ptrdiff_t send(std::span<const iovec> pieces) noexcept = 0;
  // How many bytes are there to be received without waiting; 0 also at the end.
  [[nodiscard]] virtual std::size_t available() noexcept = 0;
  // Waits until one of those asked for is possible or `event_fd` (unless -1) is readable. False when `until`
  // has passed.
  virtual bool wait(bool to_receive, bool to_send, int event_fd,
                    std::optional<Clock::time_point> until = std::nullopt) noexcept = 0;

  [[nodiscard]] const WireCounters& counters() const noexcept { return counters_; }

 protected:
  WireCounters counters_;
};

// A connected stream socket, borrowed. It is left in blocking mode.
// Thread safety: like Wire; shutdown(2) on the socket from any thread ends every wait.
class SocketWire final : public Wire {
 public:
  explicit SocketWire(int socket) noexcept : socket_(socket) {}

  [[nodiscard]] std::ptrdiff_t receive(std::span<std::byte> into, Mode mode) noexcept override;
  [[nodiscard]] std::ptrdiff_t send(std::span<const iovec> pieces) noexcept override;
  [[nodiscard]] std::size_t available() noexcept override;
  bool wait(bool to_receive, bool to_send, int event_fd,
            std::optional<Clock::time_point> until = std::nullopt) noexcept override;

 private:
  int socket_;
};

}  // namespace oxbow::nbd
