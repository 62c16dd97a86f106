// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/listener.h"

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <utility>

namespace oxbow::nbd {
namespace {

constexpr auto k_what = "cannot listen";
constexpr int k_backlog = 128;

Error system_error(std::string_view address) {
  return Error::from_errno(k_what, std::string(address), errno);
}
Error error(std::string_view address, std::string why) {
  return {k_what, std::string(address), std::move(why)};
}

// RFC 3986: everything but the unreserved characters, and slashes in a path, is escaped.
std::string escaped(std::string_view text) {
  constexpr std::string_view k_plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
  constexpr std::string_view k_hex = "0123456789ABCDEF";
  std::string out;
  for (const char each : text) {
    if (k_plain.find(each) != std::string_view::npos) {
      out += each;
      continue;
    }
    const auto byte = static_cast<unsigned char>(each);
    out += '%';
    out += k_hex[byte >> 4U];
    out += k_hex[byte & 15U];
  }
  return out;
}

sockaddr_un unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

int bind_unix(int socket, const std::string& path) {
  const sockaddr_un address = unix_address(path);
  return ::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

// Why the file at `path` is no socket that a process left behind; empty when it is one.
std::string why_in_use(const std::string& path) {
  struct ::stat file{};
  if (::lstat(path.c_str(), &file) != 0) return {};  // gone in between: binding again tells
  if (!S_ISSOCK(file.st_mode)) return "the file exists and is not a socket";
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe.valid()) return std::strerror(errno);
  const sockaddr_un address = unix_address(path);
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0) {
    return "another process is serving this socket";
  }
  if (errno == EAGAIN) return "another process is serving this socket";  // its backlog is full
  if (errno == ECONNREFUSED) return {};
  return std::string("the socket exists and cannot be tried: ") + std::strerror(errno);
}

// Two processes that find the same stale socket must not both replace it; so they take turns where the folder
// can be locked.
UniqueFd lock_folder(const std::string& path) {
  std::string folder = std::filesystem::path(path).parent_path().string();
  if (folder.empty()) folder = ".";
  UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.valid()) (void)::flock(fd.get(), LOCK_EX);
  return fd;
}

bool is_loopback(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, &address, sizeof(in));
    return (ntohl(in.sin_addr.s_addr) >> 24U) == 127;
  }
  sockaddr_in6 in6{};
  std::memcpy(&in6, &address, sizeof(in6));
  return address.sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&in6.sin6_addr) != 0;
}

struct HostPort {
  std::string host;
  std::string port;
};

std::optional<HostPort> split(std::string_view where) {
  const std::size_t colon = where.rfind(':');
  if (colon == std::string_view::npos || colon + 1 == where.size()) return std::nullopt;
  std::string_view host = where.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']') && host.size() > 2) {
    host = host.substr(1, host.size() - 2);
  } else if (host.empty() || host.find(':') != std::string_view::npos) {
    return std::nullopt;
  }
  return HostPort{std::string(host), std::string(where.substr(colon + 1))};
}

unsigned port_of(int socket) {
  sockaddr_storage bound{};
  socklen_t length = sizeof(bound);
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&bound), &length) != 0) return 0;
  // The port stands at the same place in both families.
  return ntohs(reinterpret_cast<const sockaddr_in*>(&bound)->sin_port);
}

}  // namespace

Listener::Listener(Listener&& other) noexcept
    : socket_(std::move(other.socket_)),
      path_(std::exchange(other.path_, {})),
      file_(other.file_),
      host_port_(std::move(other.host_port_)) {}

Listener::~Listener() {
  if (path_.empty()) return;
  struct ::stat now{};
  const bool ours =
      ::lstat(path_.c_str(), &now) == 0 && now.st_dev == file_.st_dev && now.st_ino == file_.st_ino;
  if (ours)
    (void)::unlink(path_.c_str());  // a socket file left behind is harmless: it is recognised as stale
}

Result<Listener> Listener::open(std::string_view address, bool allow_remote) {
  if (address.starts_with("unix:")) return open_unix(address, std::string(address.substr(5)));
  if (address.starts_with("tcp:")) return open_tcp(address, address.substr(4), allow_remote);
  return std::unexpected(error(address, "an address is unix:PATH or tcp:HOST:PORT"));
}

Result<Listener> Listener::open_unix(std::string_view address, std::string path) {
  if (path.empty()) return std::unexpected(error(address, "the path is empty"));
  if (path.find('\0') != std::string::npos)
    return std::unexpected(error(address, "the path has a zero byte"));
  if (path.size() >= sizeof(sockaddr_un::sun_path)) {
    return std::unexpected(
        error(address, "the path is longer than the 107 bytes that a Unix socket can have"));
  }
  Listener listener;
  listener.socket_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int socket = listener.socket_.get();
  if (socket < 0) return std::unexpected(system_error(address));
  // The mode that bind() will give the file; so it is never open to others, not even for a moment.
  if (::fchmod(socket, 0600) != 0) return std::unexpected(system_error(address));
  const UniqueFd turn = lock_folder(path);
  if (bind_unix(socket, path) != 0) {
    if (errno != EADDRINUSE) return std::unexpected(system_error(address));
    if (std::string why = why_in_use(path); !why.empty())
      return std::unexpected(error(address, std::move(why)));
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return std::unexpected(system_error(address));
    if (bind_unix(socket, path) != 0) return std::unexpected(system_error(address));
  }
  if (::lstat(path.c_str(), &listener.file_) != 0) return std::unexpected(system_error(address));
  listener.path_ = std::move(path);
  if (::listen(socket, k_backlog) != 0) return std::unexpected(system_error(address));
  return listener;
}

Result<Listener> Listener::open_tcp(std::string_view address, std::string_view where, bool allow_remote) {
  const auto host_port = split(where);
  if (!host_port) return std::unexpected(error(address, "a TCP address is tcp:HOST:PORT or tcp:[IPV6]:PORT"));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* raw = nullptr;
  const int failed = ::getaddrinfo(host_port->host.c_str(), host_port->port.c_str(), &hints, &raw);
  if (failed != 0) return std::unexpected(error(address, ::gai_strerror(failed)));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> found(raw, &::freeaddrinfo);
  if (!allow_remote && !is_loopback(*found->ai_addr)) {
    return std::unexpected(error(
        address, "not a loopback address, and NBD is not encrypted here: it has to be allowed explicitly"));
  }
  Listener listener;
  listener.socket_.reset(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int socket = listener.socket_.get();
  if (socket < 0) return std::unexpected(system_error(address));
  const int on = 1;
  if (::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
      ::bind(socket, found->ai_addr, found->ai_addrlen) != 0 || ::listen(socket, k_backlog) != 0) {
    return std::unexpected(system_error(address));
  }
  const bool colons = host_port->host.find(':') != std::string::npos;
  listener.host_port_ =
      (colons ? "[" + host_port->host + "]" : host_port->host) + ":" + std::to_string(port_of(socket));
  return listener;
}

UniqueFd Listener::accept() const noexcept {
  UniqueFd client(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (client.valid() && path_.empty()) {
    const int on = 1;
    // Without it the client is served all the same, only slower.
    (void)::setsockopt(client.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  }
  return client;
}

std::string Listener::uri(std::string_view export_name) const {
  if (path_.empty()) return "nbd://" + host_port_ + "/" + escaped(export_name);
  return "nbd+unix:///" + escaped(export_name) +
         "?socket=" + escaped(std::filesystem::absolute(path_).lexically_normal().string());
}

}  // namespace oxbow::nbd
