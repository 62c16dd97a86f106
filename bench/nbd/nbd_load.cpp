// SPDX-License-Identifier: Apache-2.0
// oxbow-nbd-load SOCKET WORK SECONDS [DEPTH [BLOCK]]: keeps DEPTH requests (32) of BLOCK bytes (4096) in flight on one
// connection to an NBD server's default export; prints thousands of requests per second and how many there were. WORK
// is read, write or mixed, at random blocks; fill writes every block once, half every second one. It costs as little
// as it can, so that what is measured is the server: one receive takes all replies that have come, one send answers
// them all.
#include <arpa/inet.h>
#include <endian.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t k_option_magic = 0x49484156454F5054;
constexpr std::uint32_t k_request_magic = 0x25609513;
constexpr std::uint32_t k_reply_magic = 0x67446698;
constexpr std::uint32_t k_option_go = 7;
constexpr std::uint32_t k_ack = 1;
constexpr std::uint16_t k_read = 0;
constexpr std::uint16_t k_write = 1;
constexpr std::uint16_t k_disconnect = 2;
constexpr std::size_t k_request_bytes = 28;
constexpr std::size_t k_reply_bytes = 16;

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

std::uint16_t big(std::uint16_t value) { return htobe16(value); }
std::uint32_t big(std::uint32_t value) { return htobe32(value); }
std::uint64_t big(std::uint64_t value) { return htobe64(value); }

// Appends a number in network order.
template <typename T>
void append(std::vector<std::byte>& out, T value) {
  const T ordered = big(value);
  const auto bytes = std::as_bytes(std::span(&ordered, 1));
  out.insert(out.end(), bytes.begin(), bytes.end());
}

// The number in network order that begins at `from`.
template <typename T>
T take(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return big(value);
}

// A connected Unix socket; it blocks. Thread safety: none.
class Socket {
 public:
  explicit Socket(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (fd_ < 0 || path.size() >= sizeof address.sun_path) fail("cannot make a socket for " + path);
    path.copy(address.sun_path, path.size());
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
      fail("cannot connect: " + path + ": " + std::strerror(errno));
  }
  ~Socket() { ::close(fd_); }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  void send(std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent < 0) fail(std::string("cannot send: ") + std::strerror(errno));
      bytes = bytes.subspan(static_cast<std::size_t>(sent));
    }
  }
  std::size_t receive(std::span<std::byte> into) const {
    const ssize_t got = ::recv(fd_, into.data(), into.size(), 0);
    if (got <= 0) fail("the server closed the connection");
    return static_cast<std::size_t>(got);
  }
  void receive_all(std::span<std::byte> into) const {
    while (!into.empty()) into = into.subspan(receive(into));
  }

 private:
  int fd_;
};

// Negotiates the default export; returns its size in bytes.
std::uint64_t negotiate(const Socket& socket) {
  std::vector<std::byte> in(18);
  socket.receive_all(in);
  std::vector<std::byte> out;
  append(out, std::uint32_t{3});  // fixed newstyle, no zeroes
  append(out, k_option_magic);
  append(out, k_option_go);
  append(out, std::uint32_t{6});
  append(out, std::uint32_t{0});
  append(out, std::uint16_t{0});
  socket.send(out);
  std::uint64_t size = 0;
  for (;;) {
    std::vector<std::byte> header(20);
    socket.receive_all(header);
    const auto kind = take<std::uint32_t>(header.data() + 12);
    std::vector<std::byte> payload(take<std::uint32_t>(header.data() + 16));
    socket.receive_all(payload);
    if (kind == k_ack) return size;
    if (kind > k_ack + 2) fail("the server refuses its default export");
    if (payload.size() == 12) size = take<std::uint64_t>(payload.data() + 2);
  }
}

enum class Work { read, write, mixed, fill, half };

struct Load {
  Work work = Work::read;
  double seconds = 1;
  std::uint32_t depth = 32;
  std::uint32_t block_bytes = 4096;
};

// Chooses requests and encodes them. Thread safety: none.
class Requests {
 public:
  Requests(const Load& load, std::uint64_t size_bytes)
      : load_(load), blocks_(size_bytes / load.block_bytes), payload_(load.block_bytes, std::byte{0x5a}) {
    if (blocks_ == 0) fail("the device is smaller than a block");
  }

  [[nodiscard]] bool sequential() const { return load_.work == Work::fill || load_.work == Work::half; }

  // Appends the next request; false when there are no more.
  bool next(std::vector<std::byte>& out) {
    std::uint64_t block = next_;
    if (sequential()) {
      if (block >= blocks_) return false;
      next_ += load_.work == Work::half ? 2 : 1;
    } else {
      block = random_() % blocks_;
    }
    const bool reads = load_.work == Work::read || (load_.work == Work::mixed && (random_() & 1) != 0);
    append(out, k_request_magic);
    append(out, std::uint16_t{0});
    append(out, reads ? k_read : k_write);
    // The cookie says how long the reply is.
    append(out, std::uint64_t{reads ? load_.block_bytes : 0});
    append(out, block * load_.block_bytes);
    append(out, load_.block_bytes);
    if (!reads) out.insert(out.end(), payload_.begin(), payload_.end());
    return true;
  }

 private:
  Load load_;
  std::uint64_t blocks_;
  std::uint64_t next_ = 0;
  std::vector<std::byte> payload_;
  std::mt19937_64 random_{20031};
};

// Cuts what comes into replies; their data are not looked at. Thread safety: none.
class Replies {
 public:
  explicit Replies(const Load& load)
      : buffer_((k_reply_bytes + load.block_bytes) * load.depth + k_reply_bytes) {}

  // Receives once; returns how many replies are complete by that.
  std::uint32_t receive(const Socket& socket) {
    end_ += socket.receive(std::span(buffer_).subspan(end_));
    std::uint32_t complete = 0;
    std::size_t at = 0;
    while (end_ - at >= k_reply_bytes) {
      const std::byte* const reply = buffer_.data() + at;
      if (take<std::uint32_t>(reply) != k_reply_magic) fail("this is no reply");
      if (const auto error = take<std::uint32_t>(reply + 4); error != 0)
        fail(fmt::format("the server answered with error {}", error));
      const std::size_t length = k_reply_bytes + take<std::uint64_t>(reply + 8);
      if (end_ - at < length) break;
      at += length;
      ++complete;
    }
    std::memmove(buffer_.data(), buffer_.data() + at, end_ - at);
    end_ -= at;
    return complete;
  }

 private:
  std::vector<std::byte> buffer_;
  std::size_t end_ = 0;
};

struct Result {
  std::uint64_t requests;
  double seconds;
};

Result run(const Socket& socket, const Load& load) {
  Requests requests(load, negotiate(socket));
  Replies replies(load);
  std::vector<std::byte> out;
  out.reserve((k_request_bytes + load.block_bytes) * load.depth);
  std::uint32_t in_flight = 0;
  while (in_flight < load.depth && requests.next(out)) ++in_flight;
  const auto began = Clock::now();
  const auto end = began + std::chrono::duration<double>(load.seconds);
  socket.send(out);
  std::uint64_t done = 0;
  while (in_flight > 0) {
    const std::uint32_t complete = replies.receive(socket);
    done += complete;
    in_flight -= complete;
    out.clear();
    const bool goes_on = requests.sequential() || Clock::now() < end;
    for (std::uint32_t i = 0; goes_on && i < complete && requests.next(out); ++i) ++in_flight;
    socket.send(out);
  }
  const std::chrono::duration<double> took = Clock::now() - began;
  std::vector<std::byte> goodbye;
  append(goodbye, k_request_magic);
  append(goodbye, std::uint16_t{0});
  append(goodbye, k_disconnect);
  for (int i = 0; i < 2; ++i) append(goodbye, std::uint64_t{0});
  append(goodbye, std::uint32_t{0});
  socket.send(goodbye);
  return {done, took.count()};
}

std::optional<Work> to_work(std::string_view word) {
  if (word == "read") return Work::read;
  if (word == "write") return Work::write;
  if (word == "mixed") return Work::mixed;
  if (word == "fill") return Work::fill;
  if (word == "half") return Work::half;
  return std::nullopt;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> args(argv + 1, argv + argc);
    const auto work = args.size() >= 3 && args.size() <= 5 ? to_work(args[1]) : std::nullopt;
    if (!work) {
      fmt::print(stderr, "usage: oxbow-nbd-load SOCKET read|write|mixed|fill|half SECONDS [DEPTH [BLOCK]]\n");
      return 2;
    }
    Load load{.work = *work, .seconds = std::stod(args[2])};
    if (args.size() > 3) load.depth = static_cast<std::uint32_t>(std::stoul(args[3]));
    if (args.size() > 4) load.block_bytes = static_cast<std::uint32_t>(std::stoul(args[4]));
    if (load.depth == 0 || load.block_bytes == 0) fail("depth and block are not 0");
    const Result result = run(Socket(args[0]), load);
    fmt::print("{:.1f} {}\n", static_cast<double>(result.requests) / result.seconds / 1000, result.requests);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "oxbow-nbd-load: {}\n", error.what());
    return 1;
  }
}
