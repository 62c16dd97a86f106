// SPDX-License-Identifier: Apache-2.0
#pragma once

// For the tests of TLS: the other end.

#include <gnutls/gnutls.h>

#include <cstddef>
#include <span>
#include <string>

#include "exports/nbd/test_certificates.h"

namespace oxbow::nbd {

inline constexpr auto k_test_key = "00112233445566778899aabbccddeeff";

// A client of GnuTLS at the other end of a socket, that does not wait either. Thread safety: none.
class TlsClient {
 public:
  struct Identity {
    const TestCertificate* trusted = nullptr;  // X.509 with it as the CA; null: the key
    const TestCertificate* own = nullptr;
    std::string user = "alice";
    std::string key = k_test_key;
    std::string priorities;
  };

  TlsClient(int socket, const Identity& identity) : socket_(socket) {
    gnutls_check(gnutls_init(&session_, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL));
    if (identity.trusted != nullptr) {
      use_certificates(identity);
    } else {
      use_key(identity);
    }
    gnutls_transport_set_int(session_, socket);
  }
  ~TlsClient() {
    gnutls_deinit(session_);
    if (certificates_ != nullptr) gnutls_certificate_free_credentials(certificates_);
    if (psk_ != nullptr) gnutls_psk_free_client_credentials(psk_);
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;
  TlsClient(TlsClient&&) = delete;
  TlsClient& operator=(TlsClient&&) = delete;

  // Whether the handshake is over; throws when it failed.
  bool handshake() {
    const int status = gnutls_handshake(session_);
    if (status == GNUTLS_E_AGAIN) return false;
    if (status != 0) (void)gnutls_alert_send_appropriate(session_, status);
    gnutls_check(status);
    return true;
  }
  // As GnuTLS has them.
  std::ptrdiff_t send(std::span<const std::byte> bytes) {
    return gnutls_record_send(session_, bytes.data(), bytes.size());
  }
  std::ptrdiff_t receive(std::span<std::byte> into) {
    // AGAIN also comes after a record that was none of data.
    std::ptrdiff_t status = GNUTLS_E_AGAIN;
    for (int turn = 0; turn < 4 && status == GNUTLS_E_AGAIN; ++turn) {
      status = gnutls_record_recv(session_, into.data(), into.size());
    }
    return status;
  }
  void bye() { gnutls_check(gnutls_bye(session_, GNUTLS_SHUT_WR)); }
  [[nodiscard]] gnutls_session_t session() const { return session_; }
  [[nodiscard]] int socket() const { return socket_; }

 private:
  void use_certificates(const Identity& identity) {
    gnutls_check(gnutls_certificate_allocate_credentials(&certificates_));
    const auto datum = [](std::string& text) {
      return gnutls_datum_t{reinterpret_cast<unsigned char*>(text.data()),
                            static_cast<unsigned>(text.size())};
    };
    std::string ca = identity.trusted->pem();
    const gnutls_datum_t ca_data = datum(ca);
    gnutls_check(gnutls_certificate_set_x509_trust_mem(certificates_, &ca_data, GNUTLS_X509_FMT_PEM));
    if (identity.own != nullptr) {
      std::string own = identity.own->pem();
      std::string key = identity.own->key_pem();
      const gnutls_datum_t own_data = datum(own);
      const gnutls_datum_t key_data = datum(key);
      gnutls_check(
          gnutls_certificate_set_x509_key_mem(certificates_, &own_data, &key_data, GNUTLS_X509_FMT_PEM));
    }
    const std::string priorities = identity.priorities.empty() ? "NORMAL" : identity.priorities;
    gnutls_check(gnutls_priority_set_direct(session_, priorities.c_str(), nullptr));
    gnutls_check(gnutls_credentials_set(session_, GNUTLS_CRD_CERTIFICATE, certificates_));
    gnutls_session_set_verify_cert(session_, nullptr, 0);
  }
  void use_key(const Identity& identity) {
    gnutls_check(gnutls_psk_allocate_client_credentials(&psk_));
    std::string key = identity.key;
    const gnutls_datum_t data{reinterpret_cast<unsigned char*>(key.data()),
                              static_cast<unsigned>(key.size())};
    gnutls_check(gnutls_psk_set_client_credentials(psk_, identity.user.c_str(), &data, GNUTLS_PSK_KEY_HEX));
    const std::string priorities =
        identity.priorities.empty() ? "NORMAL:-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK" : identity.priorities;
    gnutls_check(gnutls_priority_set_direct(session_, priorities.c_str(), nullptr));
    gnutls_check(gnutls_credentials_set(session_, GNUTLS_CRD_PSK, psk_));
  }

  int socket_;
  gnutls_session_t session_ = nullptr;
  gnutls_certificate_credentials_t certificates_ = nullptr;
  gnutls_psk_client_credentials_t psk_ = nullptr;
};

}  // namespace oxbow::nbd
