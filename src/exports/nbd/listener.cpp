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

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include "os/absolute_path.h"

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

// getaddrinfo() takes larger numbers too, modulo 65536.
bool is_port(std::string_view text) {
  std::uint16_t port = 0;
  const std::string digits(text);
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), port);
  return parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size();
}

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

// A socket's own address. Thread safety: a value.
struct Bound {
  sockaddr_storage address{};
  socklen_t length = sizeof(address);

  // False with errno set.
  [[nodiscard]] bool read(int socket) noexcept {
    length = sizeof(address);
    return ::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) == 0;
  }
  // The port stands at the same place in both families.
  [[nodiscard]] in_port_t& port() noexcept { return reinterpret_cast<sockaddr_in*>(&address)->sin_port; }
};

unsigned port_of(int socket) {
  Bound bound;
  return bound.read(socket) ? ntohs(bound.port()) : 0;
}

bool same_address(const addrinfo& a, const addrinfo& b) {
  return a.ai_addrlen == b.ai_addrlen && std::memcmp(a.ai_addr, b.ai_addr, a.ai_addrlen) == 0;
}

// Each of what a name was resolved to once.
std::vector<const addrinfo*> different(const addrinfo* found) {
  std::vector<const addrinfo*> all;
  for (; found != nullptr; found = found->ai_next) {
    if (std::ranges::none_of(all, [&](const addrinfo* each) { return same_address(*each, *found); }))
      all.push_back(found);
  }
  return all;
}

// A listening socket at `where`, with `port` instead of its own unless that is 0; invalid with errno set.
// `only_v6`: an IPv6 socket leaves IPv4 to the one beside it.
UniqueFd listening_tcp(const addrinfo& where, unsigned port, bool only_v6) {
  UniqueFd socket(::socket(where.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return socket;
  Bound bound;
  std::memcpy(&bound.address, where.ai_addr, where.ai_addrlen);
  if (port != 0) bound.port() = htons(static_cast<std::uint16_t>(port));
  const int on = 1;
  const bool v6 = only_v6 && where.ai_family == AF_INET6;
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) == 0 &&
      (!v6 || ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) == 0) &&
      ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&bound.address), where.ai_addrlen) == 0 &&
      ::listen(socket.get(), k_backlog) == 0) {
    return socket;
  }
  const int error = errno;
  socket.reset();
  errno = error;
  return socket;
}

// A host's name may stand for addresses of a family that this machine has not got.
bool not_of_this_machine(int error) { return error == EADDRNOTAVAIL || error == EAFNOSUPPORT; }

// A socket at each address, all at one port, and at least one of them; an empty answer leaves errno set.
std::vector<UniqueFd> listening_tcp(std::span<const addrinfo* const> addresses) {
  std::vector<UniqueFd> sockets;
  int error = EADDRNOTAVAIL;
  for (const addrinfo* each : addresses) {
    const unsigned port = sockets.empty() ? 0 : port_of(sockets.front().get());
    UniqueFd socket = listening_tcp(*each, port, addresses.size() > 1);
    if (socket.valid()) {
      sockets.push_back(std::move(socket));
      continue;
    }
    error = errno;
    if (!not_of_this_machine(error)) {
      sockets.clear();
      break;
    }
  }
  errno = error;
  return sockets;
}

// A free port of the first address may be taken at another one.
std::vector<UniqueFd> listening_tcp_at_one_port(std::span<const addrinfo* const> addresses, bool any_port) {
  constexpr int k_tries = 32;
  std::vector<UniqueFd> sockets = listening_tcp(addresses);
  for (int i = 1; any_port && i < k_tries && sockets.empty() && errno == EADDRINUSE; ++i)
    sockets = listening_tcp(addresses);
  return sockets;
}

std::string shown(const HostPort& where) {
  const bool colons = where.host.find(':') != std::string::npos;
  return (colons ? "[" + where.host + "]" : where.host) + ":" + where.port;
}

Error plaintext_refused(std::string_view address) {
  return error(
      address,
      "other hosts can reach it, and nothing is encrypted: TLS is needed, or --tcp-plaintext to allow it");
}

// Why nobody can connect to `socket` with NBD; empty when clients can.
std::string why_no_listener(int socket) {
  int type = 0;
  int listening = 0;
  socklen_t length = sizeof(int);
  if (::getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &length) != 0) return "it is not a socket";
  if (type != SOCK_STREAM) return "it is not a stream socket";
  length = sizeof(int);
  if (::getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) != 0) return std::strerror(errno);
  return listening != 0 ? "" : "it is not listening";
}

// The path of a Unix socket; nothing when it has none that a client could use.
std::optional<std::string> path_of(const Bound& bound) {
  sockaddr_un address{};
  std::memcpy(&address, &bound.address, sizeof(address));
  if (bound.length <= offsetof(sockaddr_un, sun_path) || address.sun_path[0] == '\0') return std::nullopt;
  const std::size_t longest = bound.length - offsetof(sockaddr_un, sun_path);
  return std::string(address.sun_path, ::strnlen(address.sun_path, longest));
}

std::optional<HostPort> host_port_of(const Bound& bound) {
  std::array<char, NI_MAXHOST> host{};
  std::array<char, NI_MAXSERV> port{};
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&bound.address), bound.length, host.data(), host.size(),
                    port.data(), port.size(), NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return std::nullopt;
  }
  return HostPort{host.data(), port.data()};
}

}  // namespace

Listener::Listener(Listener&& other) noexcept
    : socket_(std::move(other.socket_)),
      path_(std::exchange(other.path_, {})),
      made_file_(std::exchange(other.made_file_, false)),
      file_(other.file_),
      host_port_(std::move(other.host_port_)) {}

Listener::~Listener() {
  if (!made_file_) return;
  struct ::stat now{};
  const bool ours =
      ::lstat(path_.c_str(), &now) == 0 && now.st_dev == file_.st_dev && now.st_ino == file_.st_ino;
  if (ours)
    (void)::unlink(path_.c_str());  // a socket file left behind is harmless: it is recognised as stale
}

Result<std::vector<Listener>> Listener::open(std::string_view address, bool anywhere) {
  if (address.starts_with("tcp:")) return open_tcp(address, address.substr(4), anywhere);
  if (!address.starts_with("unix:"))
    return std::unexpected(error(address, "an address is unix:PATH or tcp:HOST:PORT"));
  auto listener = open_unix(address, std::string(address.substr(5)));
  if (!listener) return std::unexpected(std::move(listener.error()));
  std::vector<Listener> one;
  one.push_back(std::move(*listener));
  return one;
}

Result<Listener> Listener::adopt(UniqueFd socket, bool anywhere) {
  const std::string name = "descriptor " + std::to_string(socket.get());
  if (std::string why = why_no_listener(socket.get()); !why.empty())
    return std::unexpected(error(name, std::move(why)));
  Bound bound;
  if (!bound.read(socket.get())) return std::unexpected(system_error(name));
  const int flags = ::fcntl(socket.get(), F_GETFL);
  if (flags < 0 || ::fcntl(socket.get(), F_SETFL, flags | O_NONBLOCK) != 0 ||
      ::fcntl(socket.get(), F_SETFD, FD_CLOEXEC) != 0) {
    return std::unexpected(system_error(name));
  }
  Listener listener;
  listener.socket_ = std::move(socket);
  if (bound.address.ss_family == AF_UNIX) {
    auto path = path_of(bound);
    if (!path)
      return std::unexpected(error(name, "it is a Unix socket without a path, which no NBD URI can name"));
    listener.path_ = absolute_path(*path);
    return listener;
  }
  const auto where = host_port_of(bound);
  if (!where || (bound.address.ss_family != AF_INET && bound.address.ss_family != AF_INET6))
    return std::unexpected(error(name, "it is neither a Unix nor a TCP socket"));
  if (!anywhere && !is_loopback(reinterpret_cast<const sockaddr&>(bound.address)))
    return std::unexpected(plaintext_refused(name + ", tcp:" + shown(*where)));
  listener.host_port_ = shown(*where);
  return listener;
}

Result<Listener> Listener::open_unix(std::string_view address, const std::string& path) {
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
  // Absolute: the file is removed also when the working directory is another one by then.
  listener.path_ = absolute_path(path);
  listener.made_file_ = true;
  if (::listen(socket, k_backlog) != 0) return std::unexpected(system_error(address));
  return listener;
}

Result<std::vector<Listener>> Listener::open_tcp(std::string_view address, std::string_view where,
                                                 bool anywhere) {
  auto host_port = split(where);
  if (!host_port) return std::unexpected(error(address, "a TCP address is tcp:HOST:PORT or tcp:[IPV6]:PORT"));
  if (!is_port(host_port->port)) return std::unexpected(error(address, "a port is a number from 0 to 65535"));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* raw = nullptr;
  const int failed = ::getaddrinfo(host_port->host.c_str(), host_port->port.c_str(), &hints, &raw);
  if (failed != 0) return std::unexpected(error(address, ::gai_strerror(failed)));
  const Addresses found(raw, &::freeaddrinfo);
  const std::vector<const addrinfo*> addresses = different(found.get());
  const auto reachable = [](const addrinfo* each) { return !is_loopback(*each->ai_addr); };
  if (!anywhere && std::ranges::any_of(addresses, reachable))
    return std::unexpected(plaintext_refused(address));
  std::vector<UniqueFd> sockets = listening_tcp_at_one_port(addresses, host_port->port == "0");
  if (sockets.empty()) return std::unexpected(system_error(address));
  std::vector<Listener> listeners;
  for (UniqueFd& each : sockets) {
    host_port->port = std::to_string(port_of(each.get()));
    Listener listener;
    listener.socket_ = std::move(each);
    listener.host_port_ = shown(*host_port);
    listeners.push_back(std::move(listener));
  }
  return listeners;
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

std::string Listener::uri(std::string_view export_name, bool tls) const {
  const std::string scheme = tls ? "nbds" : "nbd";
  if (path_.empty()) return scheme + "://" + host_port_ + "/" + escaped(export_name);
  return scheme + "+unix:///" + escaped(export_name) + "?socket=" + escaped(path_);
}

}  // namespace oxbow::nbd
