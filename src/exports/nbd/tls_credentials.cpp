// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/tls_credentials.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <cstring>
#include <ctime>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "exports/nbd/tls_files.h"
#include "exports/nbd/tls_psk.h"

namespace oxbow::nbd {
namespace {

constexpr auto k_certificates = "cannot use TLS certificates";
constexpr auto k_keys = "cannot use TLS keys";
constexpr auto k_certificate_priorities =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA:%SERVER_PRECEDENCE";
constexpr auto k_psk_priorities =
    "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-KX-ALL:+ECDHE-PSK:+DHE-PSK:%SERVER_PRECEDENCE";

// GnuTLS only reads through it; the C interface lacks the const.
gnutls_datum_t datum_of(std::string_view bytes) {
  auto* data = const_cast<char*>(bytes.data());
  return {reinterpret_cast<unsigned char*>(data), static_cast<unsigned>(bytes.size())};
}

// Thread safety: immutable.
class Priorities {
 public:
  [[nodiscard]] int set(const char* text) noexcept { return gnutls_priority_init(&cache_, text, nullptr); }
  Priorities() noexcept = default;
  ~Priorities() {
    if (cache_ != nullptr) gnutls_priority_deinit(cache_);
  }
  Priorities(const Priorities&) = delete;
  Priorities& operator=(const Priorities&) = delete;
  Priorities(Priorities&&) = delete;
  Priorities& operator=(Priorities&&) = delete;
  [[nodiscard]] gnutls_priority_t get() const noexcept { return cache_; }

 private:
  gnutls_priority_t cache_ = nullptr;
};

// The certificates of one file. Thread safety: none.
class CertificateList {
 public:
  explicit CertificateList(std::string path) : path_(std::move(path)) {}
  ~CertificateList() {
    for (unsigned i = 0; i < count_; ++i) gnutls_x509_crt_deinit(all_[i]);
    gnutls_free(static_cast<void*>(all_));
  }
  CertificateList(const CertificateList&) = delete;
  CertificateList& operator=(const CertificateList&) = delete;
  CertificateList(CertificateList&&) = delete;
  CertificateList& operator=(CertificateList&&) = delete;

  [[nodiscard]] Result<void> load(std::string_view pem) {
    const gnutls_datum_t data = datum_of(pem);
    const int status = gnutls_x509_crt_list_import2(&all_, &count_, &data, GNUTLS_X509_FMT_PEM, 0);
    if (status < 0)
      return fail(fmt::format("it holds no certificate in PEM form ({})", gnutls_strerror(status)));
    return {};
  }
  [[nodiscard]] Result<void> check_dates() const {
    const std::time_t now = std::time(nullptr);
    for (unsigned i = 0; i < count_; ++i) {
      const std::time_t from = gnutls_x509_crt_get_activation_time(all_[i]);
      const std::time_t until = gnutls_x509_crt_get_expiration_time(all_[i]);
      const auto date = [](std::time_t when) {
        return fmt::format("{:%Y-%m-%d %H:%M} UTC", fmt::gmtime(when));
      };
      if (now < from) return fail("the certificate is not valid before " + date(from));
      if (now > until) return fail("the certificate expired on " + date(until));
    }
    return {};
  }
  [[nodiscard]] std::unexpected<Error> fail(std::string why) const {
    return std::unexpected(Error(k_certificates, path_, std::move(why)));
  }
  [[nodiscard]] gnutls_x509_crt_t* all() const noexcept { return all_; }
  [[nodiscard]] unsigned count() const noexcept { return count_; }

 private:
  std::string path_;
  gnutls_x509_crt_t* all_ = nullptr;
  unsigned count_ = 0;
};

std::string text_of(unsigned verification) {
  gnutls_datum_t text{};
  if (gnutls_certificate_verification_status_print(verification, GNUTLS_CRT_X509, &text, 0) != 0)
    return "unknown";
  std::string_view words(reinterpret_cast<const char*>(text.data), text.size);
  while (!words.empty() && (words.back() == ' ' || words.back() == '\0')) words.remove_suffix(1);
  std::string result(words);
  gnutls_free(text.data);
  return result;
}

// Whether clients that trust the CA will accept the server.
Result<void> check_chain(const CertificateList& ca, const CertificateList& server) {
  gnutls_x509_trust_list_t trusted = nullptr;
  unsigned verification = 0;
  int status = gnutls_x509_trust_list_init(&trusted, 0);
  if (status == 0) {
    status = gnutls_x509_trust_list_add_cas(trusted, ca.all(), ca.count(), 0);
    if (status >= 0) {
      status =
          gnutls_x509_trust_list_verify_crt(trusted, server.all(), server.count(), 0, &verification, nullptr);
    }
    gnutls_x509_trust_list_deinit(trusted, 0);
  }
  if (status < 0) return server.fail(gnutls_strerror(status));
  if (verification != 0) return server.fail("ca-cert.pem does not vouch for it: " + text_of(verification));
  if (gnutls_x509_crt_check_key_purpose(server.all()[0], GNUTLS_KP_TLS_WWW_SERVER, 0) == 0) {
    return server.fail("the certificate is not meant for servers (tls_www_server)");
  }
  return {};
}

// X.509. Thread safety: immutable.
class Certificates final : public TlsCredentials {
 public:
  explicit Certificates(Clients clients) noexcept : clients_(clients) {}
  ~Certificates() override {
    if (credentials_ != nullptr) gnutls_certificate_free_credentials(credentials_);
  }
  Certificates(const Certificates&) = delete;
  Certificates& operator=(const Certificates&) = delete;
  Certificates(Certificates&&) = delete;
  Certificates& operator=(Certificates&&) = delete;

  [[nodiscard]] Result<void> load(const std::string& directory);
  [[nodiscard]] int apply(gnutls_session_t session) const noexcept override;

 private:
  [[nodiscard]] Result<void> take(const std::string& directory, const Secret& ca, const Secret& certificate);
  [[nodiscard]] Result<void> take_revocations(const std::string& path);

  const Clients clients_;
  gnutls_certificate_credentials_t credentials_ = nullptr;
  Priorities priorities_;
};

Result<void> Certificates::load(const std::string& directory) {
  const std::string ca_path = directory + "/ca-cert.pem";
  const std::string certificate_path = directory + "/server-cert.pem";
  const auto ca_pem = read_secret(k_certificates, ca_path);
  if (!ca_pem) return std::unexpected(ca_pem.error());
  const auto certificate_pem = read_secret(k_certificates, certificate_path);
  if (!certificate_pem) return std::unexpected(certificate_pem.error());

  CertificateList ca(ca_path);
  CertificateList certificate(certificate_path);
  if (auto loaded = ca.load(ca_pem->bytes()); !loaded) return loaded;
  if (auto loaded = certificate.load(certificate_pem->bytes()); !loaded) return loaded;
  if (auto valid = ca.check_dates(); !valid) return valid;
  if (auto valid = certificate.check_dates(); !valid) return valid;
  if (auto taken = take(directory, *ca_pem, *certificate_pem); !taken) return taken;
  return check_chain(ca, certificate);
}

Result<void> Certificates::take(const std::string& directory, const Secret& ca, const Secret& certificate) {
  const std::string key_path = directory + "/server-key.pem";
  const auto key = read_secret(k_certificates, key_path);
  if (!key) return std::unexpected(key.error());
  int status = gnutls_certificate_allocate_credentials(&credentials_);
  if (status == 0) status = priorities_.set(k_certificate_priorities);
  if (status == 0) status = gnutls_certificate_set_known_dh_params(credentials_, GNUTLS_SEC_PARAM_MEDIUM);
  if (status < 0) return std::unexpected(Error(k_certificates, directory, gnutls_strerror(status)));

  const gnutls_datum_t ca_data = datum_of(ca.bytes());
  status = gnutls_certificate_set_x509_trust_mem(credentials_, &ca_data, GNUTLS_X509_FMT_PEM);
  if (status < 0)
    return std::unexpected(Error(k_certificates, directory + "/ca-cert.pem", gnutls_strerror(status)));
  const gnutls_datum_t certificate_data = datum_of(certificate.bytes());
  const gnutls_datum_t key_data = datum_of(key->bytes());
  status = gnutls_certificate_set_x509_key_mem2(credentials_, &certificate_data, &key_data,
                                                GNUTLS_X509_FMT_PEM, nullptr, 0);
  if (status == GNUTLS_E_CERTIFICATE_KEY_MISMATCH) {
    return std::unexpected(Error(k_certificates, key_path, "the key does not belong to server-cert.pem"));
  }
  if (status < 0) {
    return std::unexpected(Error(
        k_certificates, key_path,
        fmt::format("it holds no private key in PEM form without a password ({})", gnutls_strerror(status))));
  }
  return take_revocations(directory + "/ca-crl.pem");
}

Result<void> Certificates::take_revocations(const std::string& path) {
  std::error_code unknown;
  if (!std::filesystem::exists(path, unknown) && !unknown) return {};
  const auto list = read_secret(k_certificates, path);
  if (!list) return std::unexpected(list.error());
  const gnutls_datum_t data = datum_of(list->bytes());
  const int status = gnutls_certificate_set_x509_crl_mem(credentials_, &data, GNUTLS_X509_FMT_PEM);
  if (status < 0) return std::unexpected(Error(k_certificates, path, gnutls_strerror(status)));
  return {};
}

int Certificates::apply(gnutls_session_t session) const noexcept {
  int status = gnutls_priority_set(session, priorities_.get());
  if (status == 0) status = gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials_);
  if (clients_ == Clients::anybody) {
    gnutls_certificate_server_set_request(session, GNUTLS_CERT_IGNORE);
    return status;
  }
  gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUIRE);
  // Has the handshake itself check who the client is, and that its certificate is one for clients.
  static const gnutls_typed_vdata_st purpose{
      GNUTLS_DT_KEY_PURPOSE_OID,
      reinterpret_cast<unsigned char*>(const_cast<char*>(GNUTLS_KP_TLS_WWW_CLIENT)), 0};
  gnutls_session_set_verify_cert2(session, const_cast<gnutls_typed_vdata_st*>(&purpose), 1, 0);
  return status;
}

// Keys shared with clients. Thread safety: immutable.
class SharedKeys final : public TlsCredentials {
 public:
  explicit SharedKeys(PskKeys keys) noexcept : keys_(std::move(keys)) {}
  ~SharedKeys() override {
    if (credentials_ != nullptr) gnutls_psk_free_server_credentials(credentials_);
  }
  SharedKeys(const SharedKeys&) = delete;
  SharedKeys& operator=(const SharedKeys&) = delete;
  SharedKeys(SharedKeys&&) = delete;
  SharedKeys& operator=(SharedKeys&&) = delete;

  [[nodiscard]] int load() noexcept {
    int status = gnutls_psk_allocate_server_credentials(&credentials_);
    if (status == 0) status = priorities_.set(k_psk_priorities);
    if (status == 0) status = gnutls_psk_set_server_known_dh_params(credentials_, GNUTLS_SEC_PARAM_MEDIUM);
    if (status == 0) gnutls_psk_set_server_credentials_function2(credentials_, find_key);
    return status;
  }
  [[nodiscard]] int apply(gnutls_session_t session) const noexcept override {
    gnutls_session_set_ptr(session, const_cast<SharedKeys*>(this));  // find_key only reads
    const int status = gnutls_priority_set(session, priorities_.get());
    if (status != 0) return status;
    return gnutls_credentials_set(session, GNUTLS_CRD_PSK, credentials_);
  }

 private:
  // GnuTLS frees the key. 1: there is no such user, which it hides behind a random key.
  static int find_key(gnutls_session_t session, const gnutls_datum_t* user, gnutls_datum_t* key) noexcept {
    const PskKeys& keys = static_cast<const SharedKeys*>(gnutls_session_get_ptr(session))->keys_;
    const auto found = keys.find(std::string_view(reinterpret_cast<const char*>(user->data), user->size));
    if (found == keys.end()) return 1;
    const std::string& bytes = found->second.bytes();
    key->data = static_cast<unsigned char*>(gnutls_malloc(bytes.size()));
    if (key->data == nullptr) return -1;
    std::memcpy(key->data, bytes.data(), bytes.size());
    key->size = static_cast<unsigned>(bytes.size());
    return 0;
  }

  const PskKeys keys_;
  gnutls_psk_server_credentials_t credentials_ = nullptr;
  Priorities priorities_;
};

}  // namespace

Result<std::shared_ptr<const TlsCredentials>> TlsCredentials::from_certificates(const std::string& directory,
                                                                                Clients clients) {
  auto credentials = std::make_shared<Certificates>(clients);
  if (auto loaded = credentials->load(directory); !loaded) return std::unexpected(loaded.error());
  return credentials;
}

Result<std::shared_ptr<const TlsCredentials>> TlsCredentials::from_psk_file(const std::string& path) {
  const auto text = read_secret(k_keys, path);
  if (!text) return std::unexpected(text.error());
  auto keys = parse_psk(text->bytes(), path);
  if (!keys) return std::unexpected(keys.error());
  auto credentials = std::make_shared<SharedKeys>(*std::move(keys));
  if (const int status = credentials->load(); status != 0) {
    return std::unexpected(Error(k_keys, path, gnutls_strerror(status)));
  }
  return credentials;
}

}  // namespace oxbow::nbd
