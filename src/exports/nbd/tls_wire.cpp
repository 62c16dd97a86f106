// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/tls_wire.h"

#include <gnutls/gnutls.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace oxbow::nbd {
namespace {

// Warnings and the like that a client may send in a row instead of data.
constexpr int k_most_asides = 16;
// With so much sent a call returns, however much room the socket has: encrypting takes time.
constexpr std::size_t k_call_bytes = std::size_t{1} << 20;

// Copies as much of the pieces, without their first `skip` bytes, as there is room for; how much that is.
std::size_t gather(std::span<const iovec> pieces, std::size_t skip, std::span<std::byte> into) {
  std::size_t filled = 0;
  for (const iovec& piece : pieces) {
    const std::size_t skipped = std::min(skip, piece.iov_len);
    skip -= skipped;
    const std::size_t count = std::min(piece.iov_len - skipped, into.size() - filled);
    if (count > 0) std::memcpy(&into[filled], static_cast<const std::byte*>(piece.iov_base) + skipped, count);
    filled += count;
    if (filled == into.size()) break;
  }
  return filled;
}

std::string certificate_fault(gnutls_session_t session) {
  std::string words = "the client's certificate is not accepted";
  gnutls_datum_t text{};
  const unsigned status = gnutls_session_get_verify_cert_status(session);
  if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) == 0) {
    words += ": ";
    words.append(reinterpret_cast<const char*>(text.data));
    gnutls_free(text.data);
  }
  while (words.back() == ' ') words.pop_back();
  return words;
}

}  // namespace

Result<std::unique_ptr<TlsWire>> TlsWire::make(int socket,
                                               std::shared_ptr<const TlsCredentials> credentials) {
  std::unique_ptr<TlsWire> wire(new TlsWire(socket, std::move(credentials)));
  if (const int status = wire->open(); status != 0) {
    return std::unexpected(Error("cannot begin TLS", "connection", gnutls_strerror(status)));
  }
  return wire;
}

TlsWire::~TlsWire() {
  if (session_ != nullptr) gnutls_deinit(session_);
}

int TlsWire::open() noexcept {
  int status = gnutls_init(&session_, GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS);
  if (status == 0) status = credentials_->apply(session_);
  if (status != 0) return status;
  gnutls_transport_set_ptr(session_, this);
  gnutls_transport_set_pull_function(session_, [](gnutls_transport_ptr_t self, void* into, std::size_t size) {
    return static_cast<TlsWire*>(self)->pull({static_cast<std::byte*>(into), size});
  });
  gnutls_transport_set_vec_push_function(
      session_, [](gnutls_transport_ptr_t self, const giovec_t* pieces, int count) {
        return static_cast<TlsWire*>(self)->push({pieces, static_cast<std::size_t>(count)});
      });
  return 0;
}

// For GnuTLS, which asks for the head of a record and for the rest of it: one call to the kernel for both. 0: the
// end; -1: GnuTLS has been told the errno.
std::ptrdiff_t TlsWire::pull(std::span<std::byte> into) noexcept {
  if (raw_at_ == raw_end_) {
    ++counters_.receive_calls;
    ssize_t got = 0;
    do {
      got = ::recv(socket_, raw_.data(), raw_.size(), MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0) {
      if (errno != EAGAIN) socket_error_ = errno;
      gnutls_transport_set_errno(session_, errno);
      return -1;
    }
    raw_at_ = 0;
    raw_end_ = static_cast<std::size_t>(got);
  }
  const std::size_t count = std::min(into.size(), raw_end_ - raw_at_);
  if (count > 0) std::memcpy(into.data(), &raw_[raw_at_], count);
  raw_at_ += count;
  return static_cast<std::ptrdiff_t>(count);
}

std::ptrdiff_t TlsWire::push(std::span<const iovec> pieces) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(pieces.data());  // the C interface lacks the const; sendmsg only reads
  message.msg_iovlen = pieces.size();
  ssize_t sent = 0;
  do {
    ++counters_.send_calls;
    sent = ::sendmsg(socket_, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) {
    if (errno != EAGAIN) socket_error_ = errno;
    gnutls_transport_set_errno(session_, errno);
  }
  return sent;
}

TlsWire::Step TlsWire::failed(std::string why) {
  broken_ = true;
  end_ = -EPROTO;
  why_failed_ = std::move(why);
  return Step::failed;
}

TlsWire::Step TlsWire::handshake() {
  for (int asides = 0; asides < k_most_asides; ++asides) {
    const int status = gnutls_handshake(session_);
    if (status == GNUTLS_E_SUCCESS) {
      secured_ = true;
      return Step::done;
    }
    if (status == GNUTLS_E_AGAIN) {
      return gnutls_record_get_direction(session_) == 0 ? Step::receive : Step::send;
    }
    if (gnutls_error_is_fatal(status) == 0) continue;
    if (status == GNUTLS_E_FATAL_ALERT_RECEIVED) {
      const char* name = gnutls_alert_get_name(gnutls_alert_get(session_));
      return failed(std::string("the client refuses: ") + (name == nullptr ? "unknown alert" : name));
    }
    if (status == GNUTLS_E_PREMATURE_TERMINATION || socket_error_ != 0) return failed("the client left");
    // The client learns it if there is room; it is lost in any case.
    (void)gnutls_alert_send_appropriate(session_, status);
    if (status == GNUTLS_E_CERTIFICATE_REQUIRED || status == GNUTLS_E_NO_CERTIFICATE_FOUND) {
      return failed("the client has no certificate");
    }
    const bool certificate =
        status == GNUTLS_E_CERTIFICATE_ERROR || status == GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
    return failed(certificate ? certificate_fault(session_) : gnutls_strerror(status));
  }
  return failed("the client sends warnings only");
}

void TlsWire::bye() noexcept {
  if (secured_ && !broken_ && !unsent_) (void)gnutls_bye(session_, GNUTLS_SHUT_WR);  // best effort
  broken_ = true;
}

// With a status of receiving that is the end: the client's, or that of the connection.
void TlsWire::ended(std::ptrdiff_t status) noexcept {
  if (status == 0 || status == GNUTLS_E_PREMATURE_TERMINATION) {
    end_ = 0;
  } else {
    broken_ = true;
    end_ = socket_error_ != 0 ? -socket_error_ : -EPROTO;
  }
}

std::ptrdiff_t TlsWire::receive(std::span<std::byte> into) noexcept {
  std::size_t total = 0;
  int asides = 0;
  while (!end_ && total < into.size() && (total == 0 || holds_received())) {
    const std::ptrdiff_t status = gnutls_record_recv(session_, &into[total], into.size() - total);
    if (status == GNUTLS_E_AGAIN && raw_at_ == raw_end_) break;
    if (status > 0) {
      total += static_cast<std::size_t>(status);
    } else if (status == 0 || status == GNUTLS_E_REHANDSHAKE || ++asides == k_most_asides ||
               gnutls_error_is_fatal(static_cast<int>(status)) != 0) {
      ended(status);
    }
  }
  if (total > 0) return static_cast<std::ptrdiff_t>(total);
  if (!end_) return -EAGAIN;
  end_told_ = true;
  return *end_;
}

std::ptrdiff_t TlsWire::send(std::span<const iovec> pieces) noexcept {
  if (broken_) return -EPIPE;
  std::size_t total = 0;
  while (true) {
    std::ptrdiff_t status = 0;
    if (unsent_) {
      status = gnutls_record_send(session_, nullptr, 0);
    } else {
      const std::size_t count = total < k_call_bytes ? gather(pieces, total, plain_) : 0;
      if (count == 0) return static_cast<std::ptrdiff_t>(total);
      status = gnutls_record_send(session_, plain_.data(), count);
    }
    if (status >= 0) {
      unsent_ = false;
      total += static_cast<std::size_t>(status);
    } else if (status == GNUTLS_E_AGAIN || status == GNUTLS_E_INTERRUPTED) {
      unsent_ = true;
      return total > 0 ? static_cast<std::ptrdiff_t>(total) : -EAGAIN;
    } else {
      broken_ = true;
      return socket_error_ != 0 ? -socket_error_ : -EPIPE;
    }
  }
}

std::size_t TlsWire::available() noexcept { return end_ ? 0 : gnutls_record_check_pending(session_); }

bool TlsWire::holds_received() const noexcept {
  if (end_) return !end_told_;
  return raw_at_ < raw_end_ || gnutls_record_check_pending(session_) > 0;
}

}  // namespace oxbow::nbd
