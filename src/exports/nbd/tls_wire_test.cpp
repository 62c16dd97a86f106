// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/tls_wire.h"

#include <gnutls/gnutls.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <random>

#include "exports/nbd/test_certificates.h"
#include "exports/nbd/test_tls_client.h"
#include "os/fd.h"

namespace oxbow::nbd {
namespace {

using Options = TestCertificate::Options;
using Step = TlsWire::Step;
using Bytes = std::vector<std::byte>;

class NbdTlsWire : public ::testing::Test {
 protected:
  NbdTlsWire() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()), 0);
    near_.reset(ends[0]);
    far_.reset(ends[1]);
  }
  std::shared_ptr<const TlsCredentials> certificates(TlsCredentials::Clients clients) {
    folder_.write("ca-cert.pem", ca_.pem());
    folder_.write("server-cert.pem", server_.pem());
    folder_.write("server-key.pem", server_.key_pem());
    return *TlsCredentials::from_certificates(folder_.path(), clients);
  }
  std::shared_ptr<const TlsCredentials> keys() {
    return *TlsCredentials::from_psk_file(folder_.write("keys", std::string("alice:") + k_test_key));
  }
  // Begins both sides and runs the handshake to its end; what the server's side ended with.
  Step connect(std::shared_ptr<const TlsCredentials> credentials, const TlsClient::Identity& identity) {
    wire_ = *TlsWire::make(near_.get(), std::move(credentials));
    client_ = std::make_unique<TlsClient>(far_.get(), identity);
    bool client_done = false;
    Step step = Step::receive;
    for (int turn = 0; turn < 100; ++turn) {
      try {
        if (!client_done) client_done = client_->handshake();
      } catch (const std::runtime_error& refused) {
        client_error_ = refused.what();
        client_done = true;
      }
      if (step != Step::done && step != Step::failed) step = wire_->handshake();
      if (client_done && (step == Step::done || step == Step::failed)) return step;
    }
    ADD_FAILURE() << "the handshake does not end";
    return step;
  }
  Step connect_with_key() { return connect(keys(), {}); }
  std::ptrdiff_t send(std::span<const std::byte> bytes) {
    const iovec piece{const_cast<std::byte*>(bytes.data()), bytes.size()};
    return wire_->send({&piece, 1});
  }
  // All that the client gets for now.
  Bytes client_receives() {
    Bytes all;
    Bytes buffer(1 << 16);
    for (std::ptrdiff_t got = client_->receive(buffer); got > 0; got = client_->receive(buffer)) {
      all.insert(all.end(), buffer.begin(), buffer.begin() + got);
    }
    return all;
  }
  static Bytes random_bytes(std::size_t count) {
    std::mt19937 random(7);
    Bytes bytes(count);
    for (std::byte& each : bytes) each = static_cast<std::byte>(random());
    return bytes;
  }

  TestFolder folder_;
  TestCertificate ca_{Options{.name = "CA", .authority = true}};
  TestCertificate server_{Options{.name = "server", .signed_by = &ca_}};
  UniqueFd near_;
  UniqueFd far_;
  std::unique_ptr<TlsWire> wire_;
  std::unique_ptr<TlsClient> client_;
  std::string client_error_;
};

constexpr auto k_anybody = TlsCredentials::Clients::anybody;
constexpr auto k_certified = TlsCredentials::Clients::certified;

TEST_F(NbdTlsWire, X509AndBothVersions) {
  for (const auto& [priorities, version] : {std::pair{"NORMAL:-VERS-ALL:+VERS-TLS1.3", GNUTLS_TLS1_3},
                                            std::pair{"NORMAL:-VERS-ALL:+VERS-TLS1.2", GNUTLS_TLS1_2}}) {
    EXPECT_EQ(connect(certificates(k_anybody), {.trusted = &ca_, .priorities = priorities}), Step::done)
        << wire_->why_failed() << client_error_;
    EXPECT_EQ(gnutls_protocol_get_version(client_->session()), version);
    const Bytes hello = random_bytes(100);
    EXPECT_EQ(send(hello), 100);
    EXPECT_EQ(client_receives(), hello);
  }
}

TEST_F(NbdTlsWire, OldVersionsAreRefused) {
  EXPECT_EQ(connect(certificates(k_anybody),
                    {.trusted = &ca_, .priorities = "NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0"}),
            Step::failed);
  EXPECT_NE(wire_->why_failed(), "");
}

TEST_F(NbdTlsWire, KeysAndBothVersions) {
  for (const char* version : {"+VERS-TLS1.3", "+VERS-TLS1.2"}) {
    const std::string priorities =
        "NORMAL:-VERS-ALL:-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK:" + std::string(version);
    EXPECT_EQ(connect(keys(), {.priorities = priorities}), Step::done)
        << wire_->why_failed() << client_error_;
    const Bytes hello = random_bytes(100);
    EXPECT_EQ(send(hello), 100);
    EXPECT_EQ(client_receives(), hello);
  }
}

TEST_F(NbdTlsWire, AWrongKeyAndAnUnknownUserAreRefusedAlike) {
  EXPECT_EQ(connect(keys(), {.key = std::string(32, 'a')}), Step::failed);
  const std::string wrong_key = wire_->why_failed();
  EXPECT_NE(wrong_key, "");
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()), 0);
  near_.reset(ends[0]);
  far_.reset(ends[1]);
  EXPECT_EQ(connect(keys(), {.user = "mallory"}), Step::failed);
  EXPECT_EQ(wire_->why_failed(), wrong_key);
}

TEST_F(NbdTlsWire, AClientThatTrustsAnotherAuthorityRefuses) {
  const TestCertificate other({.name = "other CA", .authority = true});
  EXPECT_EQ(connect(certificates(k_anybody), {.trusted = &other}), Step::failed);
  EXPECT_TRUE(wire_->why_failed().starts_with("the client refuses: ")) << wire_->why_failed();
}

TEST_F(NbdTlsWire, ClientCertificatesAreAskedForAndChecked) {
  const TestCertificate good({.name = "c", .signed_by = &ca_, .purpose = GNUTLS_KP_TLS_WWW_CLIENT});
  EXPECT_EQ(connect(certificates(k_certified), {.trusted = &ca_, .own = &good}), Step::done)
      << wire_->why_failed();
}

TEST_F(NbdTlsWire, AClientWithoutACertificateIsRefused) {
  EXPECT_EQ(connect(certificates(k_certified), {.trusted = &ca_}), Step::failed);
  EXPECT_EQ(wire_->why_failed(), "the client has no certificate");
}

TEST_F(NbdTlsWire, AClientWithACertificateOfAnotherAuthorityIsRefused) {
  const TestCertificate other({.name = "other CA", .authority = true});
  const TestCertificate foreign({.name = "c", .signed_by = &other});
  EXPECT_EQ(connect(certificates(k_certified), {.trusted = &ca_, .own = &foreign}), Step::failed);
  EXPECT_NE(wire_->why_failed(), "");
}

TEST_F(NbdTlsWire, AClientWithAnExpiredCertificateIsRefused) {
  const TestCertificate old({.name = "c", .signed_by = &ca_, .from_days = -5, .until_days = -2});
  EXPECT_EQ(connect(certificates(k_certified), {.trusted = &ca_, .own = &old}), Step::failed);
  EXPECT_TRUE(wire_->why_failed().starts_with("the client's certificate is not accepted: "))
      << wire_->why_failed();
  EXPECT_NE(wire_->why_failed().find("expired"), std::string::npos) << wire_->why_failed();
}

TEST_F(NbdTlsWire, ARevokedClientIsRefused) {
  const TestCertificate client({.name = "c", .signed_by = &ca_});
  folder_.write("ca-crl.pem", ca_.revoking(client));
  EXPECT_EQ(connect(certificates(k_certified), {.trusted = &ca_, .own = &client}), Step::failed);
  EXPECT_NE(wire_->why_failed().find("revoked"), std::string::npos) << wire_->why_failed();
}

TEST_F(NbdTlsWire, AServersCertificateIsNoneForClients) {
  const TestCertificate wrong({.name = "s", .signed_by = &ca_, .purpose = GNUTLS_KP_TLS_WWW_SERVER});
  EXPECT_EQ(connect(certificates(k_certified), {.trusted = &ca_, .own = &wrong}), Step::failed);
  EXPECT_TRUE(wire_->why_failed().starts_with("the client's certificate is not accepted"))
      << wire_->why_failed();
}

TEST_F(NbdTlsWire, PlaintextInsteadOfAHandshakeFails) {
  wire_ = *TlsWire::make(near_.get(), keys());
  EXPECT_EQ(wire_->handshake(), Step::receive);
  ASSERT_EQ(::send(far_.get(), "IHAVEOPT\0\0\0\7\0\0\0\0", 16, 0), 16);
  EXPECT_EQ(wire_->handshake(), Step::failed);
  EXPECT_NE(wire_->why_failed(), "");
  Bytes buffer(100);
  EXPECT_LT(wire_->receive(buffer), 0);
  EXPECT_LT(send(buffer), 0);
}

TEST_F(NbdTlsWire, AClientThatLeavesDuringTheHandshake) {
  wire_ = *TlsWire::make(near_.get(), keys());
  far_.reset();
  EXPECT_EQ(wire_->handshake(), Step::failed);
  EXPECT_EQ(wire_->why_failed(), "the client left");
}

TEST_F(NbdTlsWire, ReceivesInPiecesAndSaysWhatItHolds) {
  ASSERT_EQ(connect_with_key(), Step::done) << wire_->why_failed();
  Bytes buffer(10'000);
  EXPECT_EQ(wire_->receive(buffer), -EAGAIN);
  EXPECT_FALSE(wire_->holds_received());
  EXPECT_EQ(wire_->available(), 0U);

  const Bytes sent = random_bytes(15'000);
  ASSERT_EQ(client_->send(sent), 15'000);
  Bytes got(100);
  ASSERT_EQ(wire_->receive(got), 100);
  EXPECT_TRUE(wire_->holds_received());
  EXPECT_EQ(wire_->available(), 14'900U);
  ASSERT_EQ(wire_->receive(buffer), 10'000);
  got.insert(got.end(), buffer.begin(), buffer.end());
  ASSERT_EQ(wire_->receive(buffer), 4'900);
  got.insert(got.end(), buffer.begin(), buffer.begin() + 4'900);
  EXPECT_EQ(got, sent);
  EXPECT_FALSE(wire_->holds_received());
  EXPECT_EQ(wire_->receive(buffer), -EAGAIN);
}

TEST_F(NbdTlsWire, SeveralRecordsComeWithOneCall) {
  ASSERT_EQ(connect_with_key(), Step::done);
  for (int i = 0; i < 10; ++i) ASSERT_EQ(client_->send(Bytes(28, std::byte{7})), 28);
  Bytes buffer(1'000);
  const auto before = wire_->counters().receive_calls;
  EXPECT_EQ(wire_->receive(buffer), 280);
  EXPECT_EQ(wire_->counters().receive_calls, before + 1);
}

TEST_F(NbdTlsWire, HalfARecordIsNothingYet) {
  ASSERT_EQ(connect_with_key(), Step::done);
  // The record's bytes, taken from the socket on their way.
  ASSERT_EQ(client_->send(Bytes(1'000, std::byte{9})), 1'000);
  Bytes record(4'000);
  const ssize_t length = ::recv(near_.get(), record.data(), record.size(), 0);
  ASSERT_GT(length, 1'000);
  ASSERT_EQ(::send(far_.get(), record.data(), 500, 0), 500);
  Bytes buffer(4'000);
  EXPECT_EQ(wire_->receive(buffer), -EAGAIN);
  EXPECT_FALSE(wire_->holds_received()) << "the rest makes the socket readable";
  ASSERT_EQ(::send(far_.get(), record.data() + 500, static_cast<std::size_t>(length) - 500, 0), length - 500);
  EXPECT_EQ(wire_->receive(buffer), 1'000);
}

TEST_F(NbdTlsWire, ChangedBytesBreakIt) {
  ASSERT_EQ(connect_with_key(), Step::done);
  ASSERT_EQ(client_->send(Bytes(1'000)), 1'000);
  Bytes record(4'000);
  const ssize_t length = ::recv(near_.get(), record.data(), record.size(), 0);
  record[600] ^= std::byte{1};
  ASSERT_EQ(::send(far_.get(), record.data(), static_cast<std::size_t>(length), 0), length);
  Bytes buffer(4'000);
  EXPECT_EQ(wire_->receive(buffer), -EPROTO);
  EXPECT_EQ(wire_->receive(buffer), -EPROTO);
  EXPECT_EQ(send(buffer), -EPIPE);
}

TEST_F(NbdTlsWire, SmallPiecesLeaveInOneRecord) {
  ASSERT_EQ(connect_with_key(), Step::done);
  Bytes bytes = random_bytes(1'000);
  std::vector<iovec> pieces;
  for (std::size_t at = 0; at < bytes.size(); at += 10) pieces.push_back({&bytes[at], 10});
  pieces.insert(pieces.begin(), {nullptr, 0});
  const auto before = wire_->counters().send_calls;
  EXPECT_EQ(wire_->send(pieces), 1'000);
  EXPECT_EQ(wire_->counters().send_calls, before + 1);
  EXPECT_EQ(client_receives(), bytes);
}

TEST_F(NbdTlsWire, ASlowReaderGetsEveryByteInOrder) {
  ASSERT_EQ(connect_with_key(), Step::done);
  const Bytes bytes = random_bytes(3'000'000);
  Bytes got;
  std::size_t sent = 0;
  int full = 0;
  while (got.size() < bytes.size()) {
    if (sent < bytes.size()) {
      const std::ptrdiff_t now = send(std::span(bytes).subspan(sent));
      if (now == -EAGAIN) {
        ++full;
      } else {
        ASSERT_GT(now, 0);
        sent += static_cast<std::size_t>(now);
      }
    }
    Bytes buffer(5'000);
    const std::ptrdiff_t now = client_->receive(buffer);
    if (now > 0) got.insert(got.end(), buffer.begin(), buffer.begin() + now);
  }
  EXPECT_GT(full, 10) << "the socket was never full";
  EXPECT_EQ(sent, bytes.size());
  EXPECT_TRUE(got == bytes);
}

// The thread has other connections, and a socket that never gets full must not keep them waiting.
TEST_F(NbdTlsWire, OneCallSendsABoundedPart) {
  ASSERT_EQ(connect_with_key(), Step::done);
  const int roomy = 8 << 20;
  if (::setsockopt(near_.get(), SOL_SOCKET, SO_SNDBUFFORCE, &roomy, sizeof(roomy)) != 0) {
    GTEST_SKIP() << "only root gets a socket with that much room";
  }
  const Bytes bytes = random_bytes(4 << 20);
  const std::ptrdiff_t sent = send(bytes);
  EXPECT_GE(sent, 1 << 20);
  EXPECT_LT(sent, (1 << 20) + (16 << 10));
}

TEST_F(NbdTlsWire, TheClientsEndIsSeenBehindItsLastBytesAndAnswersStillLeave) {
  ASSERT_EQ(connect_with_key(), Step::done);
  ASSERT_EQ(client_->send(Bytes(100)), 100);
  client_->bye();
  Bytes buffer(1'000);
  EXPECT_EQ(wire_->receive(buffer), 100);
  EXPECT_TRUE(wire_->holds_received()) << "the end has not been told";
  EXPECT_EQ(wire_->receive(buffer), 0);
  EXPECT_FALSE(wire_->holds_received());
  EXPECT_EQ(wire_->receive(buffer), 0);
  EXPECT_EQ(send(Bytes(50)), 50);
  EXPECT_EQ(client_receives().size(), 50U);
}

TEST_F(NbdTlsWire, AnEndWithoutGoodbyeIsTheEndToo) {
  ASSERT_EQ(connect_with_key(), Step::done);
  ASSERT_EQ(client_->send(Bytes(100)), 100);
  far_.reset();
  Bytes buffer(1'000);
  EXPECT_EQ(wire_->receive(buffer), 100);
  EXPECT_EQ(wire_->receive(buffer), 0);
  const std::ptrdiff_t sent = send(buffer);
  EXPECT_EQ(sent, -EPIPE);
}

TEST_F(NbdTlsWire, ByeTellsTheClient) {
  ASSERT_EQ(connect_with_key(), Step::done);
  EXPECT_EQ(send(Bytes(10)), 10);
  wire_->bye();
  wire_->bye();
  Bytes buffer(100);
  EXPECT_EQ(client_->receive(buffer), 10);
  EXPECT_EQ(client_->receive(buffer), 0) << "0, not GNUTLS_E_PREMATURE_TERMINATION";
  EXPECT_EQ(send(Bytes(10)), -EPIPE);
}

TEST_F(NbdTlsWire, RenegotiationEndsIt) {
  ASSERT_EQ(connect(keys(), {.priorities = "NORMAL:-VERS-ALL:+VERS-TLS1.2:-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK"}),
            Step::done);
  EXPECT_FALSE(client_->handshake());
  Bytes buffer(100);
  EXPECT_EQ(wire_->receive(buffer), -EPROTO);
  EXPECT_EQ(send(buffer), -EPIPE);
}

TEST_F(NbdTlsWire, RekeyingInBothDirections) {
  ASSERT_EQ(connect_with_key(), Step::done);
  ASSERT_EQ(gnutls_protocol_get_version(client_->session()), GNUTLS_TLS1_3);
  for (int i = 0; i < 3; ++i) {
    gnutls_check(gnutls_session_key_update(client_->session(), GNUTLS_KU_PEER));
    ASSERT_EQ(client_->send(Bytes(100)), 100);
    Bytes buffer(1'000);
    std::ptrdiff_t got = -EAGAIN;
    for (int turn = 0; turn < 5 && got == -EAGAIN; ++turn) got = wire_->receive(buffer);
    EXPECT_EQ(got, 100);
    EXPECT_EQ(send(Bytes(60)), 60);
    EXPECT_EQ(client_receives().size(), 60U);
  }
}

}  // namespace
}  // namespace oxbow::nbd
