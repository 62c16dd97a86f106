// SPDX-License-Identifier: Apache-2.0
// oxbow-nbd-load SOCKET WORK SECONDS [DEPTH [BLOCK]]: keeps DEPTH requests (32) of BLOCK bytes (4096) in flight on one
// connection to an NBD server's default export; prints thousands of requests per second and how many there were. WORK
// is read, write or mixed, at random blocks; fill writes every block once, half every second one, scan reads
// every block once. It costs as little
// as it can, so that what is measured is the server: one receive takes all replies that have come, one send answers
// them all.
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <optional>
#include <random>
#include <vector>

#include "peer.h"

namespace oxbow::bench {
namespace {

using Clock = std::chrono::steady_clock;

// Negotiates the default export; returns its size in bytes.
std::uint64_t negotiate(const Socket& socket) {
  std::array<std::byte, 64> bytes;
  socket.receive_all(std::span(bytes).first(18));
  std::byte* to = put(bytes.data(), std::uint32_t{3});  // fixed newstyle, no zeroes
  to = put(put(put(to, k_option_magic), k_option_go), std::uint32_t{6});
  to = put(put(to, std::uint32_t{0}), std::uint16_t{0});
  socket.send(std::span(bytes.data(), to));
  std::uint64_t size = 0;
  for (;;) {
    std::vector<std::byte> header(20);
    socket.receive_all(header);
    const auto kind = take<std::uint32_t>(header.data() + 12);
    std::vector<std::byte> payload(take<std::uint32_t>(header.data() + 16));
    socket.receive_all(payload);
    if (kind == k_ack) return size;
    if (kind > k_info) fail("the server refuses its default export");
    if (payload.size() == 12) size = take<std::uint64_t>(payload.data() + 2);
  }
}

enum class Work { read, write, mixed, fill, half, scan };

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

  [[nodiscard]] bool sequential() const { return load_.work >= Work::fill; }

  // The most that next() writes.
  [[nodiscard]] std::size_t longest() const { return k_request_bytes + load_.block_bytes; }

  // Writes the next request to `to`; what lies behind it, or null when there are no more.
  std::byte* next(std::byte* to) {
    std::uint64_t block = next_;
    if (sequential()) {
      if (block >= blocks_) return nullptr;
      next_ += load_.work == Work::half ? 2 : 1;
    } else {
      block = random_() % blocks_;
    }
    const bool reads = load_.work == Work::read || load_.work == Work::scan ||
                       (load_.work == Work::mixed && (random_() & 1) != 0);
    to = put(put(to, k_request_magic), std::uint16_t{0});
    to = put(to, reads ? k_read : k_write);
    // The cookie says how long the reply is.
    to = put(to, std::uint64_t{reads ? load_.block_bytes : 0});
    to = put(put(to, block * load_.block_bytes), load_.block_bytes);
    if (reads) return to;
    std::memcpy(to, payload_.data(), payload_.size());
    return to + payload_.size();
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
  std::vector<std::byte> out(requests.longest() * load.depth);
  std::uint32_t in_flight = 0;
  const auto send_up_to = [&](std::uint32_t count) {
    std::byte* end = out.data();
    for (std::uint32_t i = 0; i < count; ++i) {
      std::byte* const behind = requests.next(end);
      if (behind == nullptr) break;
      end = behind;
      ++in_flight;
    }
    socket.send(std::span(out.data(), end));
  };
  const auto began = Clock::now();
  const auto end = began + std::chrono::duration<double>(load.seconds);
  send_up_to(load.depth);
  std::uint64_t done = 0;
  while (in_flight > 0) {
    const std::uint32_t complete = replies.receive(socket);
    done += complete;
    in_flight -= complete;
    if (complete > 0 && (requests.sequential() || Clock::now() < end)) send_up_to(complete);
  }
  const std::chrono::duration<double> took = Clock::now() - began;
  std::array<std::byte, k_request_bytes> goodbye{};
  (void)put(put(put(goodbye.data(), k_request_magic), std::uint16_t{0}), k_disconnect);
  socket.send(goodbye);
  return {done, took.count()};
}

std::optional<Work> to_work(std::string_view word) {
  if (word == "read") return Work::read;
  if (word == "write") return Work::write;
  if (word == "mixed") return Work::mixed;
  if (word == "fill") return Work::fill;
  if (word == "half") return Work::half;
  if (word == "scan") return Work::scan;
  return std::nullopt;
}

}  // namespace
}  // namespace oxbow::bench

int main(int argc, char** argv) {
  using namespace oxbow::bench;
  try {
    const std::vector<std::string> args(argv + 1, argv + argc);
    const auto work = args.size() >= 3 && args.size() <= 5 ? to_work(args[1]) : std::nullopt;
    if (!work) {
      fmt::print(stderr,
                 "usage: oxbow-nbd-load SOCKET read|write|mixed|fill|half|scan SECONDS [DEPTH [BLOCK]]\n");
      return 2;
    }
    Load load{.work = *work, .seconds = std::stod(args[2])};
    if (args.size() > 3) load.depth = static_cast<std::uint32_t>(std::stoul(args[3]));
    if (args.size() > 4) load.block_bytes = static_cast<std::uint32_t>(std::stoul(args[4]));
    if (load.depth == 0 || load.block_bytes == 0) fail("depth and block are not 0");
    const Result result = run(Socket::connected(args[0]), load);
    fmt::print("{:.3f} {}\n", static_cast<double>(result.requests) / result.seconds / 1000, result.requests);
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "oxbow-nbd-load: {}\n", error.what());
    return 1;
  }
}
