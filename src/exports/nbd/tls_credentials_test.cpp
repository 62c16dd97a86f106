// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/tls_credentials.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "exports/nbd/test_certificates.h"
#include "exports/nbd/tls_psk.h"

namespace oxbow::nbd {
namespace {

using Options = TestCertificate::Options;

class NbdTlsCredentials : public ::testing::Test {
 protected:
  NbdTlsCredentials() { write(server_); }
  void write(const TestCertificate& server) {
    folder_.write("ca-cert.pem", ca_.pem());
    folder_.write("server-cert.pem", server.pem());
    folder_.write("server-key.pem", server.key_pem());
  }
  // Why they cannot be used, from the file's name on; empty when they can.
  [[nodiscard]] std::string why() const {
    const auto loaded = TlsCredentials::from_certificates(folder_.path(), TlsCredentials::Clients::certified);
    return loaded ? std::string() : without_folder(loaded.error(), "cannot use TLS certificates: ");
  }
  [[nodiscard]] std::string why_psk(std::string_view text) const {
    const auto loaded = TlsCredentials::from_psk_file(folder_.write("keys.psk", text));
    return loaded ? std::string() : without_folder(loaded.error(), "cannot use TLS keys: ");
  }
  [[nodiscard]] std::string without_folder(const Error& error, const std::string& what) const {
    const std::string start = what + folder_.path() + "/";
    EXPECT_TRUE(error.text().starts_with(start)) << error.text();
    return error.text().substr(std::min(start.size(), error.text().size()));
  }

  TestFolder folder_;
  TestCertificate ca_{Options{.name = "CA", .authority = true}};
  TestCertificate server_{Options{.name = "server", .signed_by = &ca_}};
};

TEST_F(NbdTlsCredentials, FilesThatFit) {
  EXPECT_EQ(why(), "");
  EXPECT_TRUE(TlsCredentials::from_certificates(folder_.path(), TlsCredentials::Clients::anybody));
}

TEST_F(NbdTlsCredentials, MissingFilesAreNamed) {
  for (const char* name : {"ca-cert.pem", "server-cert.pem", "server-key.pem"}) {
    write(server_);
    std::filesystem::remove(folder_.path() + "/" + name);
    EXPECT_EQ(why(), std::string(name) + ": No such file or directory");
  }
}

TEST_F(NbdTlsCredentials, FilesThatCannotBeRead) {
  if (::geteuid() != 0) {
    ASSERT_EQ(::chmod((folder_.path() + "/server-key.pem").c_str(), 0), 0);
    EXPECT_EQ(why(), "server-key.pem: Permission denied");
  }
  std::filesystem::remove(folder_.path() + "/server-key.pem");
  std::filesystem::create_directory(folder_.path() + "/server-key.pem");
  EXPECT_EQ(why(), "server-key.pem: it is no regular file");
  folder_.write("ca-cert.pem", std::string((1 << 20) + 1, 'x'));
  EXPECT_EQ(why(), "ca-cert.pem: it is larger than 1 MiB");
}

TEST_F(NbdTlsCredentials, AKeyOfAnotherCertificate) {
  const TestCertificate other({.name = "other"});
  folder_.write("server-key.pem", other.key_pem());
  EXPECT_EQ(why(), "server-key.pem: the key does not belong to server-cert.pem");
}

TEST_F(NbdTlsCredentials, FilesThatAreSomethingElse) {
  folder_.write("server-key.pem", server_.pem());
  EXPECT_TRUE(why().starts_with("server-key.pem: it holds no private key in PEM form without a password"))
      << why();
  folder_.write("server-key.pem", "");
  EXPECT_TRUE(why().starts_with("server-key.pem: it holds no private key in PEM form")) << why();
  folder_.write("server-cert.pem", "nothing");
  EXPECT_TRUE(why().starts_with("server-cert.pem: it holds no certificate in PEM form")) << why();
  folder_.write("ca-cert.pem", ca_.key_pem());
  EXPECT_TRUE(why().starts_with("ca-cert.pem: it holds no certificate in PEM form")) << why();
}

TEST_F(NbdTlsCredentials, CertificatesAreValidToday) {
  write(TestCertificate({.name = "old", .signed_by = &ca_, .from_days = -10, .until_days = -3}));
  EXPECT_TRUE(why().starts_with("server-cert.pem: the certificate expired on 20")) << why();
  write(TestCertificate({.name = "new", .signed_by = &ca_, .from_days = 3, .until_days = 10}));
  EXPECT_TRUE(why().starts_with("server-cert.pem: the certificate is not valid before 20")) << why();
  write(server_);
  const TestCertificate old({.name = "old CA", .authority = true, .from_days = -10, .until_days = -3});
  folder_.write("ca-cert.pem", old.pem());
  EXPECT_TRUE(why().starts_with("ca-cert.pem: the certificate expired on 20")) << why();
}

TEST_F(NbdTlsCredentials, ACertificateFromAnotherAuthority) {
  const TestCertificate other({.name = "other CA", .authority = true});
  folder_.write("ca-cert.pem", other.pem());
  EXPECT_TRUE(why().starts_with("server-cert.pem: ca-cert.pem does not vouch for it: ")) << why();
  EXPECT_TRUE(why().ends_with("issuer is unknown.")) << why();
}

TEST_F(NbdTlsCredentials, ACertificateForClientsOnly) {
  write(TestCertificate({.name = "c", .signed_by = &ca_, .purpose = GNUTLS_KP_TLS_WWW_CLIENT}));
  EXPECT_EQ(why(), "server-cert.pem: the certificate is not meant for servers (tls_www_server)");
  write(TestCertificate({.name = "s", .signed_by = &ca_, .purpose = GNUTLS_KP_TLS_WWW_SERVER}));
  EXPECT_EQ(why(), "");
}

TEST_F(NbdTlsCredentials, RevocationsAreReadWhenThereAreAny) {
  folder_.write("ca-crl.pem", ca_.revoking(server_));
  EXPECT_EQ(why(), "");
  folder_.write("ca-crl.pem", "nothing");
  EXPECT_TRUE(why().starts_with("ca-crl.pem: ")) << why();
}

constexpr auto k_key = "00112233445566778899aabbccddeeFF";

TEST_F(NbdTlsCredentials, KeysAsPsktoolWritesThem) {
  const std::string key = k_key;
  const auto keys = parse_psk("alice:" + key + "\n\n#613a62:" + key + "00\r\nbob:" + key, "f");
  ASSERT_TRUE(keys) << keys.error().text();
  ASSERT_EQ(keys->size(), 3U);
  EXPECT_EQ(keys->at("alice").bytes(),
            std::string("\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff", 16));
  EXPECT_EQ(keys->at("a:b").bytes().size(), 17U);
  EXPECT_EQ(why_psk("alice:" + key + "\n"), "");
}

TEST_F(NbdTlsCredentials, BadLinesAreNamed) {
  const std::string good = std::string("alice:") + k_key + "\n";
  EXPECT_EQ(why_psk(good + "bob\n"), "keys.psk line 2: a line has the form NAME:KEY");
  EXPECT_EQ(why_psk(good + "\nbob:xyz0\n"), "keys.psk line 3: the key is not hexadecimal");
  EXPECT_EQ(why_psk("bob:" + std::string(33, 'a')), "keys.psk line 1: the key is not hexadecimal");
  EXPECT_EQ(why_psk("bob:" + std::string(30, 'a')),
            "keys.psk line 1: the key is shorter than 16 bytes, 32 hexadecimal digits");
  EXPECT_EQ(why_psk("bob:"), "keys.psk line 1: the key is shorter than 16 bytes, 32 hexadecimal digits");
  EXPECT_EQ(why_psk(std::string(":") + k_key), "keys.psk line 1: there is no name before the colon");
  EXPECT_EQ(why_psk(std::string("#x:") + k_key), "keys.psk line 1: the name behind # is not hexadecimal");
  EXPECT_EQ(why_psk(good + good), "keys.psk line 2: the name stands in an earlier line");
  EXPECT_EQ(why_psk("\n\n"), "keys.psk: it names no user");
  EXPECT_EQ(TlsCredentials::from_psk_file("/nowhere/keys").error().text(),
            "cannot use TLS keys: /nowhere/keys: No such file or directory");
}

}  // namespace
}  // namespace oxbow::nbd
