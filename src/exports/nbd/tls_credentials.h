// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "oxbow/error.h"

struct gnutls_session_int;  // what gnutls_session_t points to

namespace oxbow::nbd {

// Whom TLS connections are encrypted as, and whom they are accepted from: certificates, or keys that both sides
// share. TLS 1.2 and 1.3, always with forward secrecy.
// Thread safety: immutable; shared by connections on any threads.
class TlsCredentials {
 public:
  enum class Clients : std::uint8_t {
    anybody,
    certified,  // only those with a certificate from the CA
  };

  // Reads ca-cert.pem, server-cert.pem, server-key.pem and, where there is one, ca-crl.pem from `directory`. All of
  // them have to fit together and to be valid today. Errors name the file and the reason.
  [[nodiscard]] static Result<std::shared_ptr<const TlsCredentials>> from_certificates(
      const std::string& directory, Clients clients);
  // Reads a file with one user per line, NAME:KEY with the key in hexadecimal, as psktool writes it. Errors name
  // the file, the line and the reason.
  [[nodiscard]] static Result<std::shared_ptr<const TlsCredentials>> from_psk_file(const std::string& path);

  virtual ~TlsCredentials() = default;
  TlsCredentials(const TlsCredentials&) = delete;
  TlsCredentials& operator=(const TlsCredentials&) = delete;
  TlsCredentials(TlsCredentials&&) = delete;
  TlsCredentials& operator=(TlsCredentials&&) = delete;

  // Has a server's session use them; they have to outlive it. GnuTLS's error number, or 0.
  [[nodiscard]] virtual int apply(gnutls_session_int* session) const noexcept = 0;

 protected:
  TlsCredentials() noexcept = default;
};

}  // namespace oxbow::nbd
