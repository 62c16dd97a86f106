// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <mutex>

#include "exports/nbd/test_session.h"

namespace oxbow::nbd {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

UniqueFd connect_unix(const std::string& path) {
  UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0)
    client.reset();
  return client;
}

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& each : std::filesystem::directory_iterator("/proc/self/fd")) ++count;
  return count;
}

constexpr std::size_t k_greeting = 18;
constexpr std::size_t k_export_answer = 10;

// Keeps the lines. Thread safety: as for logs.
class LinesLog final : public Log {
 public:
  void write(LogLevel /*level*/, std::string_view topic, std::string_view line) noexcept override {
    const std::scoped_lock lock(mutex);
    lines.push_back(std::string(topic) + ": " + std::string(line));
  }
  std::mutex mutex;
  std::vector<std::string> lines;
};

class NbdServer : public ::testing::Test {
 public:
  ~NbdServer() override { std::filesystem::remove_all(folder_); }

 protected:
  NbdServer() {
    std::string name = (std::filesystem::temp_directory_path() / "oxbow-nbd-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
    path_ = folder_ + "/a b";
  }

  std::unique_ptr<Server> make(Server::Options options = {}) {
    options.log = &log_;
    return std::make_unique<Server>(*Exports::make({{.name = "disk", .device = &disk_.device}}),
                                    std::move(options));
  }
  std::unique_ptr<Server> serve(const Server::Options& options = {}) {
    auto server = make(options);
    EXPECT_TRUE(server->listen("unix:" + path_));
    EXPECT_TRUE(server->start());
    return server;
  }
  // A client that is in the transmission phase.
  RawClient connected() {
    RawClient client(connect_unix(path_));
    EXPECT_TRUE(client.send(hello()));
    EXPECT_EQ(client.receive(k_greeting + k_export_answer).size(), k_greeting + k_export_answer);
    return client;
  }
  bool served() {
    const RawClient client = connected();
    return client.send(request(Command::read, 1, 0, 4)) && client.receive(20) == simple_reply(1) + Bytes(4);
  }
  std::string refused(std::string_view address) {
    const auto result = make()->listen(address);
    return result ? "" : result.error().text();
  }
  bool logged(std::string_view line) {
    const std::scoped_lock lock(log_.mutex);
    return std::ranges::find(log_.lines, line) != log_.lines.end();
  }

  TestDevice disk_{1 << 20};
  std::string folder_;
  std::string path_;
  LinesLog log_;
};

TEST_F(NbdServer, ServesAUnixSocketThatIsPrivateAndGoneAfterwards) {
  auto server = serve();
  struct ::stat file{};
  ASSERT_EQ(::stat(path_.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777U, 0600U);
  EXPECT_EQ(server->uri(), "nbd+unix:///?socket=" + folder_ + "/a%20b");
  EXPECT_EQ(server->uri("a%?b"), "nbd+unix:///a%25%3Fb?socket=" + folder_ + "/a%20b");
  EXPECT_TRUE(served());
  server->stop();
  EXPECT_NE(::stat(path_.c_str(), &file), 0);
  server->stop();
}

TEST_F(NbdServer, ServesTcpOnLoopback) {
  auto server = make();
  ASSERT_TRUE(server->listen("tcp:127.0.0.1:0"));
  ASSERT_TRUE(server->start());
  const std::string uri = server->uri("x");
  ASSERT_TRUE(uri.starts_with("nbd://127.0.0.1:"));
  ASSERT_TRUE(uri.ends_with("/x"));
  const auto port = static_cast<std::uint16_t>(std::stoi(uri.substr(16)));
  UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  const RawClient client(std::move(socket));
  ASSERT_TRUE(client.send(hello() + request(Command::read, 1, 0, 4)));
  EXPECT_EQ(client.receive(k_greeting + k_export_answer + 20).size(), k_greeting + k_export_answer + 20);
  EXPECT_EQ(refused("tcp:127.0.0.1:" + std::to_string(port)),
            "cannot listen: tcp:127.0.0.1:" + std::to_string(port) + ": Address already in use");
}

TEST_F(NbdServer, AddressesThatCannotBe) {
  EXPECT_EQ(refused("pipe:x"), "cannot listen: pipe:x: an address is unix:PATH or tcp:HOST:PORT");
  EXPECT_EQ(refused("unix:"), "cannot listen: unix:: the path is empty");
  const std::string longer = "unix:/" + std::string(107, 'x');
  EXPECT_EQ(refused(longer), "cannot listen: " + longer +
                                 ": the path is longer than the 107 bytes that a Unix socket can have");
  EXPECT_EQ(refused("unix:/no/such/folder/s"),
            "cannot listen: unix:/no/such/folder/s: No such file or directory");
  for (const char* address : {"tcp:", "tcp:localhost", "tcp:localhost:", "tcp::10809", "tcp:::1:10809"}) {
    EXPECT_EQ(refused(address), std::string("cannot listen: ") + address +
                                    ": a TCP address is tcp:HOST:PORT or tcp:[IPV6]:PORT");
  }
  for (const char* port : {"65536", "99999", "-1", "+1", "http", "1x", "4294967296"}) {
    const std::string address = std::string("tcp:127.0.0.1:") + port;
    EXPECT_EQ(refused(address), "cannot listen: " + address + ": a port is a number from 0 to 65535");
  }
  EXPECT_EQ(
      refused("tcp:0.0.0.0:0"),
      "cannot listen: tcp:0.0.0.0:0: other hosts can reach it, and nothing is encrypted: TLS is needed, "
      "or --tcp-plaintext to allow it");
  EXPECT_TRUE(make({.tcp_plaintext = true})->listen("tcp:0.0.0.0:0"));
}

TEST_F(NbdServer, StaleSocketIsReplacedAndALiveOneRefused) {
  {
    const auto listener = Listener::open("unix:" + path_, false);
    ASSERT_TRUE(listener);
    EXPECT_EQ(refused("unix:" + path_),
              "cannot listen: unix:" + path_ + ": another process is serving this socket");
  }
  // A process that was killed leaves its file.
  UniqueFd dead(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(dead.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  dead.reset();
  ASSERT_TRUE(std::filesystem::exists(path_));
  auto server = serve();
  EXPECT_TRUE(served());
}

TEST_F(NbdServer, FilesThatAreNoSocketsStay) {
  const UniqueFd file(::open(path_.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  EXPECT_EQ(refused("unix:" + path_),
            "cannot listen: unix:" + path_ + ": the file exists and is not a socket");
  EXPECT_TRUE(std::filesystem::is_regular_file(path_));
}

TEST_F(NbdServer, ASocketFileThatSomebodyReplacedIsLeftAlone) {
  auto server = serve();
  std::filesystem::remove(path_);
  const UniqueFd file(::open(path_.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  server->stop();
  EXPECT_TRUE(std::filesystem::exists(path_));
}

TEST_F(NbdServer, ClientsBeyondTheLimitAreToldAndOthersServedOn) {
  auto server = serve({.max_connections = 2});
  RawClient first = connected();
  const RawClient second = connected();
  {
    const RawClient third(connect_unix(path_));
    Bytes go;
    put(go, std::uint32_t{3});
    put(go, k_option_magic);
    put(go, std::uint32_t{7});
    put(go, std::uint32_t{6});
    put(go, std::uint32_t{0});
    put(go, std::uint16_t{0});
    ASSERT_TRUE(third.send(go));
    const Bytes greeting = third.receive(k_greeting);
    Bytes expected;
    put_option_reply(expected, Option::go, ReplyType::error_policy,
                     "there are 2 connections already, which is the limit");
    EXPECT_EQ(third.receive(expected.size()), expected);
  }
  ASSERT_TRUE(second.send(request(Command::read, 1, 0, 4)));
  EXPECT_EQ(second.receive(20), simple_reply(1) + Bytes(4));
  first.close();
  const auto until = steady_clock::now() + std::chrono::seconds(10);
  bool again = false;
  while (!again && steady_clock::now() < until) {
    const RawClient next(connect_unix(path_));
    again = next.send(hello()) &&
            next.receive(k_greeting + k_export_answer).size() == k_greeting + k_export_answer;
  }
  EXPECT_TRUE(again);
}

TEST_F(NbdServer, HalfOpenHandshakesBlockNobody) {
  auto server = serve();
  std::vector<RawClient> idle;
  const Bytes begin = hello();
  for (std::size_t cut = 0; cut < begin.size(); ++cut) {
    idle.emplace_back(connect_unix(path_));
    ASSERT_TRUE(idle.back().send({begin.begin(), begin.begin() + static_cast<std::ptrdiff_t>(cut)}));
  }
  EXPECT_TRUE(served());
  const auto before = steady_clock::now();
  server->stop();
  EXPECT_LT(steady_clock::now() - before, milliseconds(3000));
  for (const RawClient& each : idle) {
    EXPECT_EQ(each.receive(k_greeting).size(), k_greeting);
    EXPECT_TRUE(each.at_end());
  }
}

TEST_F(NbdServer, HandshakesHaveALimitOfTime) {
  // Long enough for an honest handshake on a loaded machine.
  auto server = serve({.handshake_limit = milliseconds(1000)});
  const RawClient client(connect_unix(path_));
  EXPECT_EQ(client.receive(k_greeting).size(), k_greeting);
  EXPECT_TRUE(client.at_end());
  while (!logged("nbd.client: a client was let go: the handshake took too long")) std::this_thread::yield();
  // Time in the transmission phase doesn't count.
  const RawClient slow = connected();
  std::this_thread::sleep_for(milliseconds(1200));
  ASSERT_TRUE(slow.send(request(Command::read, 1, 0, 4)));
  EXPECT_EQ(slow.receive(20), simple_reply(1) + Bytes(4));
}

TEST_F(NbdServer, ClientsThatVanishAtAnyByteLeaveNothingBehind) {
  auto server = serve();
  EXPECT_TRUE(served());
  const std::size_t before = open_descriptors();
  const Bytes whole = hello() + request(Command::write, 1, 4096, 512) + pattern(512, 1) +
                      request(Command::read, 2, 0, 512) + request(Command::disconnect, 3, 0, 0);
  for (std::size_t cut = 0; cut <= whole.size(); cut += cut < 80 ? 1 : 37) {
    const RawClient client(connect_unix(path_));
    (void)client.send({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(cut)});
  }
  EXPECT_TRUE(served());
  const auto until = steady_clock::now() + std::chrono::seconds(10);
  while (open_descriptors() > before && steady_clock::now() < until) std::this_thread::yield();
  EXPECT_LE(open_descriptors(), before);
  server->stop();
}

TEST_F(NbdServer, StopFinishesWhatIsInFlight) {
  auto server = serve();
  const RawClient client = connected();
  disk_.store->hold();
  ASSERT_TRUE(client.send(request(Command::write, 1, 0, 512) + pattern(512, 2)));
  while (disk_.store->waiting() == 0) std::this_thread::yield();
  std::thread stopper([&] { server->stop(); });
  std::this_thread::sleep_for(milliseconds(30));
  disk_.store->release();
  EXPECT_EQ(client.receive(16), simple_reply(1));
  EXPECT_TRUE(client.at_end());
  stopper.join();
}

TEST_F(NbdServer, StopDoesNotWaitForAClientThatTakesNothing) {
  auto server = serve({.stop_limit = milliseconds(100)});
  const RawClient client = connected();
  for (std::uint64_t i = 0; i < 10; ++i) ASSERT_TRUE(client.send(request(Command::read, i, 0, 1 << 20)));
  std::this_thread::sleep_for(milliseconds(30));
  const auto before = steady_clock::now();
  server->stop();
  EXPECT_LT(steady_clock::now() - before, milliseconds(5000));
}

TEST_F(NbdServer, ManyClientsComeAndGo) {
  auto server = serve();
  std::vector<std::thread> threads;
  std::atomic<int> failed{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 100; ++round) failed += served() ? 0 : 1;
    });
  }
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(failed, 0);
}

}  // namespace
}  // namespace oxbow::nbd
