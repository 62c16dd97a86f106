// SPDX-License-Identifier: Apache-2.0
#include "control/server.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "control/client.h"
#include "control/connections.h"
#include "control/test_served.h"

namespace oxbow::control {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

UniqueFd connect_to(const std::string& path) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    socket.reset();
  return socket;
}

void send(const UniqueFd& socket, std::string_view text) {
  EXPECT_EQ(::send(socket.get(), text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
}

std::string receive_all(const UniqueFd& socket) {
  std::string all;
  std::array<char, 4096> part;
  for (;;) {
    const ssize_t got = ::recv(socket.get(), part.data(), part.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return all;
    all.append(part.data(), static_cast<std::size_t>(got));
  }
}

TEST(ControlServer, AnswersClientsUntilItIsStopped) {
  const ScratchDirectory directory;
  ServedRam ram("disk");
  auto server = Server::start(ram.served, directory.path(), nullptr);
  ASSERT_TRUE(server) << server.error().text();
  const auto process = find_served(directory.path(), "disk");
  ASSERT_TRUE(process) << process.error().text();
  EXPECT_EQ(process->socket, (*server)->path());
  const Client client(*process);
  const auto status = client.get("/v1/devices/disk");
  ASSERT_TRUE(status) << status.error().text();
  EXPECT_EQ(status->at("size"), 1 << 20);
  const auto synced = client.post("/v1/devices/disk/sync");
  ASSERT_TRUE(synced) << synced.error().text();
  const auto unknown = client.get("/v1/devices/other");
  ASSERT_FALSE(unknown);
  EXPECT_EQ(unknown.error().text(), "no such device: other: GET /v1/devices lists those that there are");

  (*server)->stop();
  EXPECT_EQ(directory.files(), 0U);
  const auto gone = client.get("/v1/devices");
  ASSERT_FALSE(gone);
  EXPECT_EQ(gone.error().text(),
            fmt::format("cannot ask process: {}: nobody answers at its control socket", ::getpid()));
  const auto missing = find_served(directory.path(), "disk");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().text(),
            fmt::format("no such device: disk: nobody serves it in {}; oxbow list shows "
                        "what is there",
                        directory.path()));
}

TEST(ControlServer, RefusesANameThatIsTaken) {
  const ScratchDirectory directory;
  ServedRam ram("disk");
  const auto first = Server::start(ram.served, directory.path(), nullptr);
  ASSERT_TRUE(first);
  const auto second = Server::start(ram.served, directory.path(), nullptr);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().text(), StartsWith("cannot serve device: disk: process "));
  EXPECT_EQ(directory.files(), 2U);
}

class ConnectionsTest : public testing::Test {
 protected:
  void start(Connections::Limits limits) {
    auto made = Registration::make(directory_.path(), {"disk"});
    ASSERT_TRUE(made) << made.error().text();
    registration_.emplace(std::move(*made));
    connections_.emplace(registration_->socket(), http_, limits, nullptr);
  }
  [[nodiscard]] UniqueFd client() const {
    UniqueFd socket = connect_to(registration_->record().socket);
    EXPECT_TRUE(socket.valid());
    return socket;
  }

  ScratchDirectory directory_;
  ServedRam ram_{"disk"};
  Router router_{ram_.served, 1};
  Http http_{router_};
  std::optional<Registration> registration_;
  std::optional<Connections> connections_;
};

constexpr std::string_view k_index = "GET /v1 HTTP/1.1\r\n\r\n";

TEST_F(ConnectionsTest, ARequestMayComeByteByByte) {
  start({});
  const UniqueFd socket = client();
  for (const char each : k_index) send(socket, {&each, 1});
  EXPECT_THAT(receive_all(socket), StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST_F(ConnectionsTest, WhatComesAfterTheRequestIsNotAnswered) {
  start({});
  const UniqueFd socket = client();
  send(socket, std::string(k_index) + std::string(k_index));
  const std::string answer = receive_all(socket);
  EXPECT_EQ(answer.find("HTTP/1.1 200"), answer.rfind("HTTP/1.1 200"));
}

TEST_F(ConnectionsTest, SlowRequestsEnd) {
  start({.receive = std::chrono::milliseconds(50)});
  const UniqueFd socket = client();
  send(socket, "GET /v1 HT");
  const std::string answer = receive_all(socket);
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 408 Request Timeout\r\n"));
  EXPECT_THAT(answer, HasSubstr("it took too long to come"));
}

TEST_F(ConnectionsTest, HalfARequestIsToldSo) {
  start({});
  const UniqueFd socket = client();
  send(socket, "GET /v1 HT");
  ::shutdown(socket.get(), SHUT_WR);
  EXPECT_THAT(receive_all(socket), HasSubstr("it ends early"));
}

TEST_F(ConnectionsTest, MoreThanTheLimitAreTurnedAway) {
  start({.clients = 2});
  std::vector<UniqueFd> idle;
  for (int i = 0; i < 2; ++i) idle.push_back(client());
  EXPECT_THAT(receive_all(client()), HasSubstr("too many clients at a time; try again later"));
  for (const UniqueFd& each : idle) {
    send(each, k_index);
    EXPECT_THAT(receive_all(each), StartsWith("HTTP/1.1 200 OK\r\n"));
  }
  // Their places are free as soon as their threads have ended.
  std::string answer;
  for (int i = 0; i < 1000 && !answer.starts_with("HTTP/1.1 200"); ++i) {
    idle.clear();
    const UniqueFd next = client();
    (void)::send(next.get(), k_index.data(), k_index.size(), MSG_NOSIGNAL);
    answer = receive_all(next);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST_F(ConnectionsTest, StoppingDoesNotWaitForThoseWhoSayNothing) {
  start({.receive = std::chrono::hours(1)});
  const UniqueFd idle = client();
  const UniqueFd half = client();
  send(half, "GET /v1 HT");
  connections_->stop();
  // As a server does at its end: a client that nobody has accepted yet is not answered, but not left waiting.
  registration_.reset();
  for (const UniqueFd* each : {&idle, &half}) {
    const std::string answer = receive_all(*each);
    if (!answer.empty()) {
      EXPECT_THAT(answer, HasSubstr("the process is about to end"));
    }
  }
}

TEST_F(ConnectionsTest, AClientThatTakesNoAnswerIsLeft) {
  start({.receive = std::chrono::milliseconds(500), .send = std::chrono::milliseconds(50)});
  // It never reads; the answer fits the socket or not: either way the place becomes free.
  const UniqueFd socket = client();
  send(socket, "GET /metrics HTTP/1.1\r\n\r\n");
  connections_->stop();
}

}  // namespace
}  // namespace oxbow::control
