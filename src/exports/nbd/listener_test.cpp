// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/listener.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <memory>

namespace oxbow::nbd {
namespace {

UniqueFd stream(int family) { return UniqueFd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)); }

UniqueFd bound_v4(std::uint32_t host, bool listening = true) {
  UniqueFd socket = stream(AF_INET);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(host);
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  if (listening) {
    EXPECT_EQ(::listen(socket.get(), 1), 0);
  }
  return socket;
}

UniqueFd bound_unix(const std::string& path) {
  UniqueFd socket = stream(AF_UNIX);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  EXPECT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
  EXPECT_EQ(::listen(socket.get(), 1), 0);
  return socket;
}

// Why `socket` is refused, without "cannot listen: descriptor N".
std::string refused(UniqueFd socket) {
  const std::string start = "cannot listen: descriptor " + std::to_string(socket.get());
  const auto result = Listener::adopt(std::move(socket), false);
  if (result) return "accepted";
  EXPECT_TRUE(result.error().text().starts_with(start)) << result.error().text();
  return result.error().text().substr(start.size());
}

TEST(Listener, AdoptsOnlyListeningStreamSockets) {
  EXPECT_EQ(refused(UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC))), ": it is not a socket");
  EXPECT_EQ(refused(UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0))),
            ": it is not a stream socket");
  EXPECT_EQ(refused(bound_v4(INADDR_LOOPBACK, false)), ": it is not listening");
  EXPECT_EQ(refused(bound_unix(std::string("\0oxbow-listener-test", 20))),
            ": it is a Unix socket without a path, which no NBD URI can name");
}

TEST(Listener, AdoptsPlaintextTcpBeyondLoopbackOnlyWhenAllowed) {
  UniqueFd socket = bound_v4(INADDR_ANY);
  const UniqueFd again(::dup(socket.get()));
  const std::string why = refused(std::move(socket));
  EXPECT_TRUE(why.starts_with(", tcp:0.0.0.0:")) << why;
  EXPECT_TRUE(
      why.ends_with(": other hosts can reach it, and nothing is encrypted: TLS is needed, or "
                    "--tcp-plaintext to allow it"))
      << why;
  const auto allowed = Listener::adopt(UniqueFd(::dup(again.get())), true);
  ASSERT_TRUE(allowed) << allowed.error().text();
  EXPECT_TRUE(allowed->uri("a").starts_with("nbd://0.0.0.0:")) << allowed->uri("a");
}

TEST(Listener, AnAdoptedSocketNeitherBlocksNorLosesItsFile) {
  const std::string path =
      std::filesystem::temp_directory_path() / ("listener-" + std::to_string(::getpid()));
  {
    UniqueFd socket = bound_unix(path);
    const int fd = socket.get();
    ASSERT_EQ(::fcntl(fd, F_SETFD, 0), 0);
    const auto listener = Listener::adopt(std::move(socket), false);
    ASSERT_TRUE(listener) << listener.error().text();
    EXPECT_EQ(listener->uri("x"), "nbd+unix:///x?socket=" + path);
    EXPECT_EQ(::fcntl(fd, F_GETFD), FD_CLOEXEC);
    EXPECT_FALSE(listener->accept().valid());
    EXPECT_EQ(errno, EAGAIN);
  }
  EXPECT_TRUE(std::filesystem::exists(path));
  std::filesystem::remove(path);
}

TEST(Listener, AUnixSocketsFileGoesAlsoFromAnotherFolder) {
  const std::filesystem::path before = std::filesystem::current_path();
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("folder-" + std::to_string(::getpid()));
  std::filesystem::create_directory(folder);
  std::filesystem::current_path(folder);
  {
    const auto listeners = Listener::open("unix:s", false);
    std::filesystem::current_path(before);
    ASSERT_TRUE(listeners);
    EXPECT_EQ(listeners->front().uri(""), "nbd+unix:///?socket=" + (folder / "s").string());
    EXPECT_TRUE(std::filesystem::exists(folder / "s"));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "s"));
  std::filesystem::remove_all(folder);
}

// Whether this machine lets a socket have that address.
bool usable(const addrinfo& where) {
  const UniqueFd socket = stream(where.ai_family);
  return socket.valid() && ::bind(socket.get(), where.ai_addr, where.ai_addrlen) == 0;
}

TEST(Listener, ANameIsServedAtAllOfItsAddresses) {
  const auto listeners = Listener::open("tcp:localhost:0", false);
  ASSERT_TRUE(listeners) << listeners.error().text();
  const std::string uri = listeners->front().uri("");
  for (const Listener& each : *listeners) EXPECT_EQ(each.uri(""), uri);
  ASSERT_TRUE(uri.starts_with("nbd://localhost:")) << uri;
  const std::string port = uri.substr(16, uri.size() - 17);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* raw = nullptr;
  ASSERT_EQ(::getaddrinfo("localhost", port.c_str(), &hints, &raw), 0);
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> found(raw, &::freeaddrinfo);
  std::size_t tried = 0;
  for (const addrinfo* each = found.get(); each != nullptr; each = each->ai_next) {
    addrinfo any_port = *each;
    sockaddr_storage address{};
    std::memcpy(&address, each->ai_addr, each->ai_addrlen);
    reinterpret_cast<sockaddr_in*>(&address)->sin_port = 0;
    any_port.ai_addr = reinterpret_cast<sockaddr*>(&address);
    if (!usable(any_port)) continue;
    ++tried;
    const UniqueFd client = stream(each->ai_family);
    EXPECT_EQ(::connect(client.get(), each->ai_addr, each->ai_addrlen), 0) << std::strerror(errno);
  }
  EXPECT_GE(tried, 1U);
}

}  // namespace
}  // namespace oxbow::nbd
