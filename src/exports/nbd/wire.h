// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace oxbow::nbd {

// How often the kernel was asked; for tests of batching and for people who look at speed.
struct WireCounters {
  std::uint64_t receive_calls = 0;
  std::uint64_t send_calls = 0;
};

// The stream to one client: a socket, or a test's bytes. Nothing here waits.
// Thread safety: belongs to the thread that serves the connection.
class Wire {
 public:
  Wire() noexcept = default;
  virtual ~Wire() = default;
  Wire(const Wire&) = delete;
  Wire& operator=(const Wire&) = delete;
  Wire(Wire&&) = delete;
  Wire& operator=(Wire&&) = delete;

  // One call to the kernel. More than 0: bytes received; 0: the client has ended its side; below 0: -errno,
  // of which -EAGAIN only says that there is nothing now.
  [[nodiscard]] virtual std::ptrdiff_t receive(std::span<std::byte> into) noexcept = 0;
  // One call: bytes sent (maybe not all), or -errno, of which -EAGAIN only says that there is no room.
  [[nodiscard]] virtual std::ptrdiff_t send(std::span<const iovec> pieces) noexcept = 0;
  // How many bytes are there to be received; 0 also at the end.
  [[nodiscard]] virtual std::size_t available() noexcept = 0;

  // Whether there is something to receive that the socket does not show as readable.
  [[nodiscard]] virtual bool holds_received() const noexcept { return false; }
  // Whether send() answers -EFAULT for memory that cannot be read. Elsewhere reading it would end the process.
  [[nodiscard]] virtual bool survives_faults() const noexcept { return true; }

  [[nodiscard]] const WireCounters& counters() const noexcept { return counters_; }

 protected:
  WireCounters counters_;
};

// A connected stream socket, borrowed, in whichever mode. Thread safety: like Wire.
class SocketWire final : public Wire {
 public:
  explicit SocketWire(int socket) noexcept : socket_(socket) {}

  [[nodiscard]] std::ptrdiff_t receive(std::span<std::byte> into) noexcept override;
  [[nodiscard]] std::ptrdiff_t send(std::span<const iovec> pieces) noexcept override;
  [[nodiscard]] std::size_t available() noexcept override;

 private:
  int socket_;
};

}  // namespace oxbow::nbd
