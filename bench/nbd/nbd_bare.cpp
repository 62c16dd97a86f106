// SPDX-License-Identifier: Apache-2.0
// oxbow-nbd-bare SOCKET BYTES [mapped FILE | sendfile FILE]: the least that a server of NBD's messages must do, to
// measure others against. One connection at a time; it takes what the socket holds with one call, answers reads
// from one area of memory of BYTES and puts writes there, and sends the answers together. It checks nothing, so
// use it with the load generator only. "mapped" answers reads from a mapping of FILE, "sendfile" has the kernel send
// them from it. Prints "ready" when it listens.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include <array>
#include <cstdio>
#include <vector>

#include "peer.h"

namespace oxbow::bench {
namespace {

constexpr std::size_t k_most_pieces = 1024;  // of one sendmsg
constexpr std::size_t k_receive_bytes = 4U << 20;

struct Area {
  std::byte* bytes = nullptr;
  std::size_t size = 0;
  int file = -1;  // to be sent from, unless -1
};

Area make_area(const std::vector<std::string>& args) {
  Area area{.size = std::stoull(args[1])};
  void* start = nullptr;
  if (args.size() == 4) {
    const int fd = ::open(args[3].c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) fail("cannot open " + args[3]);
    if (args[2] == "sendfile") area.file = fd;
    start = ::mmap(nullptr, area.size, PROT_READ, MAP_SHARED, fd, 0);
  } else {
    start = ::mmap(nullptr, area.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start != MAP_FAILED) (void)::madvise(start, area.size, MADV_NOHUGEPAGE);
  }
  if (start == MAP_FAILED) fail("no memory");
  area.bytes = static_cast<std::byte*>(start);
  return area;
}

void negotiate(const Socket& client, std::uint64_t size) {
  std::array<std::byte, 64> out;
  std::byte* to = put(put(out.data(), k_greeting_magic), k_option_magic);
  to = put(to, std::uint16_t{3});  // fixed newstyle, no zeroes
  client.send(std::span(out.data(), to));
  std::array<std::byte, 20> in;  // flags and the option's head
  client.receive_all(in);
  std::vector<std::byte> rest(take<std::uint32_t>(in.data() + 16));
  client.receive_all(rest);
  to = put(put(out.data(), k_option_reply_magic), k_option_go);
  to = put(put(to, k_info), std::uint32_t{12});
  to = put(put(put(to, std::uint16_t{0}), size), std::uint16_t{1});
  to = put(put(to, k_option_reply_magic), k_option_go);
  to = put(put(to, k_ack), std::uint32_t{0});
  client.send(std::span(out.data(), to));
}

// One connection from the first request on. Thread safety: none.
class Session {
 public:
  Session(const Socket& client, const Area& area) : client_(client), area_(area), in_(k_receive_bytes) {}

  void run() {
    while (!ended_) {
      const std::size_t got = client_.receive_some(std::span(in_).subspan(end_));
      if (got == 0) return;
      end_ += got;
      handle();
      send();
    }
  }

 private:
  void handle() {
    std::size_t at = 0;
    while (end_ - at >= k_request_bytes) {
      const std::byte* const request = in_.data() + at;
      const auto command = take<std::uint16_t>(request + 6);
      const auto offset = take<std::uint64_t>(request + 16);
      const auto length = take<std::uint32_t>(request + 24);
      ended_ = command == k_disconnect;
      if (ended_) return;
      const std::size_t payload = command == k_write ? length : 0;
      if (end_ - at < k_request_bytes + payload) break;
      if (command == k_write) std::memcpy(area_.bytes + offset, request + k_request_bytes, length);
      answer(request + 8, offset, command == k_read ? length : 0);
      at += k_request_bytes + payload;
    }
    std::memmove(in_.data(), in_.data() + at, end_ - at);
    end_ -= at;
  }

  void answer(const std::byte* cookie, std::uint64_t offset, std::uint32_t length) {
    std::byte* const head = heads_[answers_++].data();
    std::memcpy(put(put(head, k_reply_magic), std::uint32_t{0}), cookie, 8);
    pieces_[count_++] = {head, k_reply_bytes};
    if (length > 0 && area_.file >= 0) {
      send();
      send_file(static_cast<off_t>(offset), length);
    } else if (length > 0) {
      pieces_[count_++] = {area_.bytes + offset, length};
    }
    if (count_ + 2 > pieces_.size()) send();
  }

  void send() {
    iovec* first = pieces_.data();
    iovec* const last = first + count_;
    while (first != last) {
      msghdr message{};
      message.msg_iov = first;
      message.msg_iovlen = static_cast<std::size_t>(last - first);
      const ssize_t result =
          ::sendmsg(client_.fd(), &message, MSG_NOSIGNAL | (area_.file >= 0 ? MSG_MORE : 0));
      if (result < 0) fail(std::string("cannot send: ") + std::strerror(errno));
      auto sent = static_cast<std::size_t>(result);
      while (first != last && sent >= first->iov_len) sent -= (first++)->iov_len;
      if (sent > 0) *first = {static_cast<std::byte*>(first->iov_base) + sent, first->iov_len - sent};
    }
    count_ = 0;
    answers_ = 0;
  }

  void send_file(off_t at, std::size_t length) {
    while (length > 0) {
      const ssize_t sent = ::sendfile(client_.fd(), area_.file, &at, length);
      if (sent <= 0) fail("cannot send from the file");
      length -= static_cast<std::size_t>(sent);
    }
  }

  const Socket& client_;
  const Area& area_;
  std::vector<std::byte> in_;
  std::size_t end_ = 0;
  bool ended_ = false;
  std::array<iovec, k_most_pieces> pieces_;
  std::size_t count_ = 0;
  std::array<std::array<std::byte, k_reply_bytes>, k_most_pieces> heads_;
  std::size_t answers_ = 0;
};

void serve(const std::string& path, const Area& area) {
  const Socket listening(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_un address = address_of(path);
  if (::bind(listening.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listening.fd(), 8) != 0) {
    fail("cannot listen: " + path + ": " + std::strerror(errno));
  }
  fmt::print("ready\n");
  (void)std::fflush(stdout);
  for (;;) {
    const Socket client(::accept4(listening.fd(), nullptr, nullptr, SOCK_CLOEXEC));
    if (client.fd() < 0) fail("cannot accept");
    try {
      negotiate(client, area.size);
      Session(client, area).run();
    } catch (const std::exception& error) {
      fmt::print(stderr, "oxbow-nbd-bare: {}\n", error.what());
    }
  }
}

}  // namespace
}  // namespace oxbow::bench

int main(int argc, char** argv) {
  try {
    const std::vector<std::string> args(argv + 1, argv + argc);
    const bool from_file = args.size() == 4 && (args[2] == "mapped" || args[2] == "sendfile");
    if (args.size() != 2 && !from_file) {
      fmt::print(stderr, "usage: oxbow-nbd-bare SOCKET BYTES [mapped FILE | sendfile FILE]\n");
      return 2;
    }
    oxbow::bench::serve(args[0], oxbow::bench::make_area(args));
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "oxbow-nbd-bare: {}\n", error.what());
    return 1;
  }
}
