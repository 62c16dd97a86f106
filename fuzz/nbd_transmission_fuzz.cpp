// SPDX-License-Identifier: Apache-2.0
// A transmission phase as a conversation: the input is read as a list of requests, some of them wrong, that
// arrive in pieces and are answered in pieces. Every request that arrived whole gets exactly one reply of the
// right form, and the disk holds in the end what they left.

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>

#include "device/device.h"
#include "exports/nbd/transmission.h"
#include "os/queue.h"
#include "stores/ram/ram_store.h"
#include "targets/linear/linear_target.h"

namespace {

using namespace oxbow;
using Bytes = std::vector<std::byte>;

constexpr std::uint64_t k_size = (300 << 10) + 123;

void require(bool condition) {
  if (!condition) std::abort();
}

// The client's bytes in pieces; takes replies in pieces, and sometimes none.
class PiecesWire final : public nbd::Wire {
 public:
  PiecesWire(Bytes sent, std::size_t piece) : sent_(std::move(sent)), piece_(piece) {}

  std::ptrdiff_t receive(std::span<std::byte> into) noexcept override {
    if (++turn_ % 3 == 0) return -EAGAIN;
    const std::size_t count = std::min({into.size(), piece_, sent_.size() - at_});
    std::ranges::copy(std::span(sent_).subspan(at_, count), into.begin());
    at_ += count;
    return static_cast<std::ptrdiff_t>(count);
  }
  std::ptrdiff_t send(std::span<const iovec> pieces) noexcept override {
    if (++turn_ % 4 == 0) return -EAGAIN;
    std::size_t left = piece_ * 3;
    for (const iovec& each : pieces) {
      const std::size_t count = std::min(left, each.iov_len);
      const auto* from = static_cast<const std::byte*>(each.iov_base);
      got.insert(got.end(), from, from + count);
      left -= count;
    }
    return static_cast<std::ptrdiff_t>(piece_ * 3 - left);
  }
  std::size_t available() noexcept override { return std::min(piece_, sent_.size() - at_); }
  Bytes got;

 private:
  Bytes sent_;
  std::size_t at_ = 0;
  std::size_t piece_;
  unsigned turn_ = 0;
};

// Lives as long as the process.
struct Fixture {
  Queue queue;
  Device device{std::make_shared<LinearTarget>(*RamStore::create({.size_bytes = k_size}), "ram",
                                               Range{0, k_size}, true),
                Device::Options{}, queue};
  nbd::Export served{.name = "", .device = &device};
};

// Reads the input as numbers. Thread safety: none.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data), left_(size) {}
  [[nodiscard]] bool empty() const { return left_ == 0; }
  std::uint64_t number(std::size_t bytes) {
    std::uint64_t value = 0;
    for (; bytes > 0 && left_ > 0; --bytes, --left_) value = (value << 8U) | *data_++;
    return value;
  }

 private:
  const std::uint8_t* data_;
  std::size_t left_;
};

// What the client sends, and what it may expect: the content of the disk is followed in `disk`.
Bytes compose(Input& input, Bytes& disk, std::map<std::uint64_t, nbd::RequestHeader>& expected) {
  Bytes sent;
  for (std::uint64_t cookie = 1; !input.empty() && cookie < 200 && sent.size() < (2U << 20); ++cookie) {
    nbd::RequestHeader header;
    header.cookie = cookie;
    header.command = static_cast<nbd::Command>(input.number(1) % 9);
    const std::uint64_t how = input.number(1);
    header.flags =
        how % 8 == 7 ? static_cast<std::uint16_t>(input.number(2)) : static_cast<std::uint16_t>(how % 2);
    header.offset = how / 8 % 8 == 7 ? input.number(8) : input.number(3) % (k_size + 1);
    header.length =
        static_cast<std::uint32_t>(how / 64 == 3 ? input.number(3) % (300U << 10) : input.number(2) % 3000);
    if (header.command == nbd::Command::flush) header.offset = header.length = 0;
    const auto encoded = nbd::encode_request(header);
    sent.insert(sent.end(), encoded.begin(), encoded.end());
    if (header.command == nbd::Command::disconnect) break;

    const bool fine = nbd::check_request(header, k_size, true).ok();
    Bytes payload;
    if (header.command == nbd::Command::write) {
      payload.assign(header.length, static_cast<std::byte>(cookie * 37 + how));
      sent.insert(sent.end(), payload.begin(), payload.end());
    }
    expected[cookie] = header;
    if (!fine) continue;
    const auto begin = disk.begin() + static_cast<std::ptrdiff_t>(header.offset);
    if (header.command == nbd::Command::write) std::ranges::copy(payload, begin);
    if (header.command == nbd::Command::trim || header.command == nbd::Command::write_zeroes) {
      std::fill_n(begin, header.length, std::byte{0});
    }
  }
  return sent;
}

// The data of reads is not compared: it may show what a later request of the same batch wrote.
void check_replies(std::span<const std::byte> got, std::map<std::uint64_t, nbd::RequestHeader>& expected) {
  while (!got.empty()) {
    require(got.size() >= nbd::k_simple_reply_bytes);
    require(nbd::get<std::uint32_t>(got, 0) == nbd::k_simple_reply_magic);
    const auto error = nbd::get<std::uint32_t>(got, 4);
    const auto found = expected.find(nbd::get<std::uint64_t>(got, 8));
    require(found != expected.end());
    got = got.subspan(nbd::k_simple_reply_bytes);
    const nbd::RequestHeader& header = found->second;
    require(error == nbd::wire_error(nbd::check_request(header, k_size, true)));
    if (error == 0 && header.command == nbd::Command::read) {
      require(got.size() >= header.length);
      got = got.subspan(header.length);
    }
    expected.erase(found);
  }
  require(expected.empty());
}

void clear(Fixture& fixture) {
  const IoStatus cleared = run_blocking(
      fixture.queue, [&](Io& io) { return fixture.device.discard(io, {0, k_size}, Durability::with_flush); });
  require(cleared.ok());
}

void converse(Fixture& fixture, Bytes sent, std::size_t piece, Bytes& got) {
  PiecesWire wire(std::move(sent), piece);
  nbd::Transmission transmission(wire, fixture.queue, {.served = &fixture.served},
                                 {.requests = 8, .bytes = 1 << 20});
  while (true) {
    const nbd::Interest wanted = transmission.step(true);
    if (wanted.ended) break;
    if (fixture.queue.poll() || wanted.receive || wanted.send) continue;
    pollfd waited{fixture.queue.event_fd(), POLLIN, 0};
    require(::poll(&waited, 1, 10'000) == 1);
  }
  got = std::move(wire.got);
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Fixture fixture;
  if (size < 3) return 0;
  Input input(data, size);
  const std::uint64_t mode = input.number(1);
  const std::size_t piece = 1 + input.number(2) % 8192;
  Bytes got;
  if (mode % 4 == 0) {
    // Bytes as they are: nothing may be expected but that it ends.
    const auto raw = std::as_bytes(std::span(data + 3, size - 3));
    converse(fixture, {raw.begin(), raw.end()}, piece, got);
    return 0;
  }
  clear(fixture);
  Bytes disk(k_size);
  std::map<std::uint64_t, nbd::RequestHeader> expected;
  Bytes sent = compose(input, disk, expected);
  converse(fixture, std::move(sent), std::max<std::size_t>(piece, 64), got);
  check_replies(got, expected);

  // In the end the disk holds what the requests, in their order, left.
  Bytes now(k_size);
  const IoStatus read = run_blocking(fixture.queue, [&](Io& io) { return fixture.device.read(io, 0, now); });
  require(read.ok() && now == disk);
  return 0;
}
