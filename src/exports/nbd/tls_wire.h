// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "exports/nbd/tls_credentials.h"
#include "exports/nbd/wire.h"

namespace oxbow::nbd {

// The server's end of TLS over a connected stream socket, borrowed, in whichever mode. Takes the place of the
// SocketWire once the client has been told to begin; nothing is received or sent before handshake() says that it
// is done.
// Thread safety: like Wire.
class TlsWire final : public Wire {
 public:
  enum class Step : std::uint8_t {
    done,
    receive,  // call again when the socket is readable
    send,     // call again when it is writable
    failed,   // why_failed() says why; the client has been told as far as TLS lets it
  };

  [[nodiscard]] static Result<std::unique_ptr<TlsWire>> make(
      int socket, std::shared_ptr<const TlsCredentials> credentials);
  ~TlsWire() override;

  // Goes on with the handshake as far as it gets without waiting.
  [[nodiscard]] Step handshake();
  [[nodiscard]] const std::string& why_failed() const noexcept { return why_failed_; }
  // Tells the client that nothing more comes, unless the socket has no room for it. Nothing is sent afterwards.
  void bye() noexcept;

  [[nodiscard]] std::ptrdiff_t receive(std::span<std::byte> into) noexcept override;
  // After -EAGAIN, and behind what was sent of more, the next call has to begin with the bytes that were not sent:
  // up to 16 KiB of them are encrypted already.
  [[nodiscard]] std::ptrdiff_t send(std::span<const iovec> pieces) noexcept override;
  [[nodiscard]] std::size_t available() noexcept override;
  [[nodiscard]] bool holds_received() const noexcept override;
  [[nodiscard]] bool survives_faults() const noexcept override { return false; }

 private:
  static constexpr std::size_t k_record_bytes = 16 << 10;

  TlsWire(int socket, std::shared_ptr<const TlsCredentials> credentials) noexcept
      : socket_(socket), credentials_(std::move(credentials)) {}
  [[nodiscard]] int open() noexcept;
  [[nodiscard]] std::ptrdiff_t pull(std::span<std::byte> into) noexcept;
  [[nodiscard]] std::ptrdiff_t push(std::span<const iovec> pieces) noexcept;
  [[nodiscard]] Step failed(std::string why);
  void ended(std::ptrdiff_t status) noexcept;

  int socket_;
  std::shared_ptr<const TlsCredentials> credentials_;
  gnutls_session_int* session_ = nullptr;
  bool secured_ = false;
  bool broken_ = false;                // nothing can be sent any more
  std::optional<std::ptrdiff_t> end_;  // what receive() answers from now on
  bool end_told_ = false;
  int socket_error_ = 0;    // the last of the socket that was more than EAGAIN
  bool unsent_ = false;     // GnuTLS holds a record that the socket had no room for
  std::size_t raw_at_ = 0;  // of what is in raw_, the first byte that GnuTLS has not taken
  std::size_t raw_end_ = 0;
  std::string why_failed_;
  std::array<std::byte, k_record_bytes + 512> raw_;  // received: a record with its head and tail
  std::array<std::byte, k_record_bytes> plain_;      // to be sent: small pieces in one record
};

}  // namespace oxbow::nbd
