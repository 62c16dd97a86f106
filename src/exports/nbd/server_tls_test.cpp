// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <chrono>
#include <mutex>
#include <thread>

#include "exports/nbd/server.h"
#include "exports/nbd/test_device.h"
#include "exports/nbd/test_haggling.h"
#include "exports/nbd/test_tls_client.h"

namespace oxbow::nbd {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::size_t k_greeting = 18;
constexpr std::size_t k_reply_head = 20;
constexpr auto k_limit = std::chrono::seconds(10);

// Keeps the lines. Thread safety: as for logs.
class LinesLog final : public Log {
 public:
  void write(LogLevel /*level*/, std::string_view /*topic*/, std::string_view line) noexcept override {
    const std::scoped_lock lock(mutex_);
    lines_.emplace_back(line);
  }
  // Whether such a line comes before long.
  bool waits_for(std::string_view part) {
    for (const auto until = steady_clock::now() + k_limit; steady_clock::now() < until;) {
      {
        const std::scoped_lock lock(mutex_);
        for (const std::string& each : lines_) {
          if (each.find(part) != std::string::npos) return true;
        }
      }
      std::this_thread::sleep_for(milliseconds(2));
    }
    return false;
  }

 private:
  std::mutex mutex_;
  std::vector<std::string> lines_;
};

// A client's socket, in the clear at first. Waits. Thread safety: none.
class Peer {
 public:
  explicit Peer(const std::string& path) : socket_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    EXPECT_EQ(::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }

  void send(const Bytes& bytes) {
    for (std::size_t sent = 0; sent < bytes.size();) {
      const auto rest = std::span(bytes).subspan(sent);
      const std::ptrdiff_t now =
          tls_ ? tls_->send(rest) : ::send(socket_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
      if (now > 0) {
        sent += static_cast<std::size_t>(now);
      } else if (!tls_ || now != GNUTLS_E_AGAIN || !wait(POLLOUT)) {
        return;
      }
    }
  }
  // So many bytes, or fewer when the server ends it before.
  Bytes receive(std::size_t count) {
    Bytes got;
    while (got.size() < count) {
      Bytes buffer(count - got.size());
      std::ptrdiff_t now = GNUTLS_E_AGAIN;
      if (tls_) {
        now = tls_->receive(buffer);
        if (now == GNUTLS_E_AGAIN && wait(POLLIN)) continue;
      } else if (wait(POLLIN)) {
        now = ::recv(socket_.get(), buffer.data(), buffer.size(), 0);
      }
      if (now <= 0) {
        end_ = now;
        break;
      }
      got.insert(got.end(), buffer.begin(), buffer.begin() + now);
    }
    return got;
  }
  // What receive() ended with: 0 for a proper end.
  [[nodiscard]] std::ptrdiff_t end() const { return end_; }
  // Whether the server ends it without another byte.
  bool ended() { return receive(1).empty(); }

  // Whether it came about.
  bool secure(const TlsClient::Identity& identity) {
    tls_ = std::make_unique<TlsClient>(socket_.get(), identity);
    gnutls_transport_set_pull_function(
        tls_->session(), [](gnutls_transport_ptr_t to, void* into, std::size_t size) {
          return ::recv(static_cast<int>(reinterpret_cast<std::intptr_t>(to)), into, size, MSG_DONTWAIT);
        });
    try {
      while (!tls_->handshake()) {
        if (!wait(POLLIN)) return false;
      }
    } catch (const std::runtime_error&) {
      return false;
    }
    return true;
  }
  void start_tls(const TlsClient::Identity& identity = {}) {
    send(flags(3) + option(5));
    EXPECT_EQ(receive(k_greeting).size(), k_greeting);
    EXPECT_EQ(receive(k_reply_head), reply(5, ReplyType::ack));
    EXPECT_TRUE(secure(identity));
  }
  // Chooses the default export by EXPORT_NAME.
  void go() {
    send(option(1));
    EXPECT_EQ(receive(10).size(), 10U);
  }
  TlsClient& tls() { return *tls_; }

 private:
  bool wait(short events) {
    pollfd waited{socket_.get(), events, 0};
    return ::poll(&waited, 1, static_cast<int>(milliseconds(k_limit).count())) == 1;
  }

  UniqueFd socket_;
  std::unique_ptr<TlsClient> tls_;
  std::ptrdiff_t end_ = 1;
};

Bytes request(Command command, std::uint64_t offset, std::uint32_t length, std::uint64_t cookie = 1) {
  const auto head =
      encode_request({.command = command, .cookie = cookie, .offset = offset, .length = length});
  return {head.begin(), head.end()};
}

class NbdServerTls : public ::testing::Test {
 protected:
  std::unique_ptr<Server> serve(Server::Options options = {}) {
    options.tls = *TlsCredentials::from_psk_file(folder_.write("keys", std::string("alice:") + k_test_key));
    options.log = &log_;
    auto server = std::make_unique<Server>(*Exports::make({{.name = "disk", .device = &disk_.device}}),
                                           std::move(options));
    EXPECT_TRUE(server->listen("unix:" + path()));
    EXPECT_TRUE(server->start());
    return server;
  }
  [[nodiscard]] std::string path() const { return folder_.path() + "/s"; }

  TestFolder folder_;
  LinesLog log_;
  TestDevice disk_{8 << 20};
};

TEST_F(NbdServerTls, AWholeSessionAndAProperEnd) {
  const auto server = serve();
  Peer peer(path());
  peer.start_tls();
  peer.go();
  const Bytes data(5'000, std::byte{0x5a});
  peer.send(request(Command::write, 1'000, 5'000) + data);
  EXPECT_EQ(peer.receive(16).size(), 16U);
  peer.send(request(Command::read, 1'000, 5'000));
  EXPECT_EQ(peer.receive(16).size(), 16U);
  EXPECT_EQ(peer.receive(5'000), data);
  peer.send(request(Command::disconnect, 0, 0));
  EXPECT_TRUE(peer.ended());
  EXPECT_EQ(peer.end(), 0) << "TLS was closed before the socket";
}

TEST_F(NbdServerTls, ManyAndLargeRequestsInBothDirections) {
  const auto server = serve();
  Peer peer(path());
  peer.start_tls();
  peer.go();
  constexpr std::uint32_t k_length = 1'000'003;
  Bytes all;
  for (std::uint32_t i = 0; i < 8; ++i) {
    Bytes data(k_length, static_cast<std::byte>(i + 1));
    peer.send(request(Command::write, std::uint64_t{i} * k_length, k_length) + data);
    all.insert(all.end(), data.begin(), data.end());
  }
  EXPECT_EQ(peer.receive(8 * 16).size(), 8 * 16U);
  const Bytes contents = disk_.store->contents();
  EXPECT_TRUE(std::ranges::equal(std::span(contents).first(all.size()), all));
  // All asked for before the first byte is taken.
  for (std::uint32_t i = 0; i < 200; ++i)
    peer.send(request(Command::read, std::uint64_t{i} * 37'003, 40'000, i));
  for (std::uint32_t i = 0; i < 200; ++i) {
    const Bytes head = peer.receive(16);
    ASSERT_EQ(head.size(), 16U) << i;
    const auto cookie = get<std::uint64_t>(head, 8);
    const auto expected = std::span(all).subspan(cookie * 37'003, 40'000);
    ASSERT_TRUE(std::ranges::equal(peer.receive(40'000), expected)) << cookie;
  }
}

TEST_F(NbdServerTls, NothingIsServedInTheClear) {
  const auto server = serve();
  Peer asking(path());
  asking.send(flags(3) + option(7, info_data("disk")) + option(3));
  const Bytes expected = error(7, ReplyType::error_tls_required, "this server is used with TLS only") +
                         error(3, ReplyType::error_tls_required, "this server is used with TLS only");
  EXPECT_EQ(asking.receive(k_greeting).size(), k_greeting);
  EXPECT_EQ(asking.receive(expected.size()), expected);
  Peer choosing(path());
  choosing.send(flags(3) + option(1));
  EXPECT_EQ(choosing.receive(k_greeting).size(), k_greeting);
  EXPECT_TRUE(choosing.ended());
  EXPECT_TRUE(log_.waits_for("this server is used with TLS only"));
}

TEST_F(NbdServerTls, WhatIsPipelinedBehindStarttlsIsThrownAway) {
  const auto server = serve();
  for (const std::size_t more : {std::size_t{0}, std::size_t{10'000}}) {
    Peer peer(path());
    peer.send(flags(3) + option(5) + option(99, Bytes(more)) + option(7, info_data("disk")));
    EXPECT_EQ(peer.receive(k_greeting).size(), k_greeting);
    EXPECT_EQ(peer.receive(k_reply_head), reply(5, ReplyType::ack));
    ASSERT_TRUE(peer.secure({}));
    peer.send(option(2));
    EXPECT_EQ(peer.receive(1'000), reply(2, ReplyType::ack))
        << "the first answer is to the first encrypted option";
    EXPECT_EQ(peer.end(), 0);
  }
}

TEST_F(NbdServerTls, WhatIsInTheClearAfterTheAnswerEndsIt) {
  const auto server = serve();
  Peer peer(path());
  peer.send(flags(3) + option(5));
  EXPECT_EQ(peer.receive(k_greeting + k_reply_head).size(), k_greeting + k_reply_head);
  peer.send(option(7, info_data("disk")));
  // At most an alert of TLS comes back, which begins with 21.
  const Bytes got = peer.receive(1'000);
  EXPECT_TRUE(got.empty() || got.front() == std::byte{21});
  EXPECT_TRUE(log_.waits_for("TLS failed: "));
}

TEST_F(NbdServerTls, AFloodInTheClearEndsIt) {
  const auto server = serve();
  Peer peer(path());
  Bytes flood = flags(3) + option(5);
  flood.resize(4 << 20);
  peer.send(flood);
  (void)peer.receive(1'000);
  EXPECT_TRUE(log_.waits_for("in the clear instead of beginning with TLS") || log_.waits_for("TLS failed: "));
}

TEST_F(NbdServerTls, TheHandshakeLimitCoversTls) {
  const auto server = serve({.handshake_limit = milliseconds(100)});
  Peer peer(path());
  peer.send(flags(3) + option(5));
  EXPECT_EQ(peer.receive(k_greeting + k_reply_head).size(), k_greeting + k_reply_head);
  EXPECT_TRUE(peer.ended());
  Peer later(path());
  later.start_tls();
  EXPECT_TRUE(later.ended()) << "haggling after TLS counts too";
  EXPECT_TRUE(log_.waits_for("the handshake took too long"));
}

TEST_F(NbdServerTls, ClientsThatStallDoNotKeepOthersWaiting) {
  const auto server = serve({.threads = 1});
  Peer stalled(path());
  stalled.send(flags(3) + option(5));
  EXPECT_EQ(stalled.receive(k_greeting + k_reply_head).size(), k_greeting + k_reply_head);
  Peer peer(path());
  peer.start_tls();
  peer.go();
  peer.send(request(Command::read, 0, 10));
  EXPECT_EQ(peer.receive(26).size(), 26U);
}

TEST_F(NbdServerTls, AWrongKeyIsToldAndLogged) {
  const auto server = serve();
  Peer peer(path());
  peer.send(flags(3) + option(5));
  EXPECT_EQ(peer.receive(k_greeting + k_reply_head).size(), k_greeting + k_reply_head);
  EXPECT_FALSE(peer.secure({.key = std::string(32, '0')}));
  EXPECT_TRUE(log_.waits_for("TLS failed: "));
}

TEST_F(NbdServerTls, StopsWithClientsAtEveryStage) {
  auto server = serve();
  Peer greeted(path());
  EXPECT_EQ(greeted.receive(k_greeting).size(), k_greeting);
  Peer securing(path());
  securing.send(flags(3) + option(5));
  EXPECT_EQ(securing.receive(k_greeting + k_reply_head).size(), k_greeting + k_reply_head);
  Peer haggling(path());
  haggling.start_tls();
  Peer served(path());
  served.start_tls();
  served.go();
  const auto before = steady_clock::now();
  server->stop();
  EXPECT_LT(steady_clock::now() - before, std::chrono::seconds(3));
  for (Peer* each : {&greeted, &securing, &haggling, &served}) EXPECT_TRUE(each->ended());
  EXPECT_EQ(served.end(), 0);
}

TEST_F(NbdServerTls, CredentialsOpenTcpAndAreInTheUri) {
  const auto server = serve();
  EXPECT_EQ(server->uri("disk"), "nbds+unix:///disk?socket=" + path());
  Server remote(*Exports::make({{.name = "disk", .device = &disk_.device}}),
                {.tls = *TlsCredentials::from_psk_file(folder_.path() + "/keys")});
  ASSERT_TRUE(remote.listen("tcp:0.0.0.0:0"));
  EXPECT_TRUE(remote.uri("disk").starts_with("nbds://0.0.0.0:")) << remote.uri("disk");
}

}  // namespace
}  // namespace oxbow::nbd
