// SPDX-License-Identifier: Apache-2.0
#pragma once

// For the tests of TLS: certificates and keys, made when they are needed.

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace oxbow::nbd {

inline void gnutls_check(int status) {
  if (status < 0) throw std::runtime_error(gnutls_strerror(status));
}

// A certificate with its key. Thread safety: none.
class TestCertificate {
 public:
  struct Options {
    std::string name;
    const TestCertificate* signed_by = nullptr;  // null: by itself
    bool authority = false;
    const char* purpose = nullptr;  // an OID; null: any
    long from_days = -1;            // from today
    long until_days = 1;
  };

  explicit TestCertificate(const Options& options) {
    gnutls_check(gnutls_x509_privkey_init(&key_));
    gnutls_check(gnutls_x509_privkey_generate(key_, GNUTLS_PK_ECDSA,
                                              GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
    gnutls_check(gnutls_x509_crt_init(&certificate_));
    gnutls_check(gnutls_x509_crt_set_version(certificate_, 3));
    static std::atomic<std::uint32_t> count = 0;
    const std::uint32_t number = ++count;
    const std::array<unsigned char, 4> serial{1, static_cast<unsigned char>(number >> 16U),
                                              static_cast<unsigned char>(number >> 8U),
                                              static_cast<unsigned char>(number)};
    gnutls_check(gnutls_x509_crt_set_serial(certificate_, serial.data(), serial.size()));
    gnutls_check(gnutls_x509_crt_set_dn_by_oid(certificate_, GNUTLS_OID_X520_COMMON_NAME, 0,
                                               options.name.data(),
                                               static_cast<unsigned>(options.name.size())));
    constexpr std::time_t k_day = 86'400;
    const std::time_t now = std::time(nullptr);
    gnutls_check(gnutls_x509_crt_set_activation_time(certificate_, now + options.from_days * k_day));
    gnutls_check(gnutls_x509_crt_set_expiration_time(certificate_, now + options.until_days * k_day));
    gnutls_check(gnutls_x509_crt_set_key(certificate_, key_));
    gnutls_check(gnutls_x509_crt_set_basic_constraints(certificate_, options.authority ? 1 : 0, -1));
    gnutls_check(gnutls_x509_crt_set_key_usage(
        certificate_, options.authority ? GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN
                                        : static_cast<unsigned>(GNUTLS_KEY_DIGITAL_SIGNATURE)));
    if (options.purpose != nullptr) {
      gnutls_check(gnutls_x509_crt_set_key_purpose_oid(certificate_, options.purpose, 0));
    }
    const TestCertificate& signer = options.signed_by == nullptr ? *this : *options.signed_by;
    gnutls_check(gnutls_x509_crt_sign2(certificate_, signer.certificate_, signer.key_, GNUTLS_DIG_SHA256, 0));
  }
  ~TestCertificate() {
    gnutls_x509_crt_deinit(certificate_);
    gnutls_x509_privkey_deinit(key_);
  }
  TestCertificate(const TestCertificate&) = delete;
  TestCertificate& operator=(const TestCertificate&) = delete;
  TestCertificate(TestCertificate&&) = delete;
  TestCertificate& operator=(TestCertificate&&) = delete;

  [[nodiscard]] std::string pem() const {
    gnutls_datum_t text{};
    gnutls_check(gnutls_x509_crt_export2(certificate_, GNUTLS_X509_FMT_PEM, &text));
    return take(text);
  }
  [[nodiscard]] std::string key_pem() const {
    gnutls_datum_t text{};
    gnutls_check(gnutls_x509_privkey_export2(key_, GNUTLS_X509_FMT_PEM, &text));
    return take(text);
  }
  // A list of what it, as a CA, has revoked.
  [[nodiscard]] std::string revoking(const TestCertificate& other) const {
    gnutls_x509_crl_t list = nullptr;
    gnutls_check(gnutls_x509_crl_init(&list));
    gnutls_check(gnutls_x509_crl_set_version(list, 2));
    const std::time_t now = std::time(nullptr);
    gnutls_check(gnutls_x509_crl_set_crt(list, other.certificate_, now - 60));
    gnutls_check(gnutls_x509_crl_set_this_update(list, now - 60));
    gnutls_check(gnutls_x509_crl_set_next_update(list, now + 86'400));
    gnutls_check(gnutls_x509_crl_set_number(list, "\1", 1));
    gnutls_check(gnutls_x509_crl_sign2(list, certificate_, key_, GNUTLS_DIG_SHA256, 0));
    gnutls_datum_t text{};
    gnutls_check(gnutls_x509_crl_export2(list, GNUTLS_X509_FMT_PEM, &text));
    gnutls_x509_crl_deinit(list);
    return take(text);
  }

 private:
  static std::string take(gnutls_datum_t& text) {
    std::string result(reinterpret_cast<const char*>(text.data), text.size);
    gnutls_free(text.data);
    return result;
  }

  gnutls_x509_privkey_t key_ = nullptr;
  gnutls_x509_crt_t certificate_ = nullptr;
};

// A folder that lives as long as the object. Thread safety: none.
class TestFolder {
 public:
  TestFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "oxbow-tls-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path_ = name;
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  TestFolder(TestFolder&&) = delete;
  TestFolder& operator=(TestFolder&&) = delete;

  [[nodiscard]] const std::string& path() const { return path_; }
  std::string write(const std::string& name, std::string_view text) const {
    const std::string path = path_ + "/" + name;
    std::ofstream(path, std::ios::trunc | std::ios::binary) << text;
    return path;
  }

 private:
  std::string path_;
};

}  // namespace oxbow::nbd
