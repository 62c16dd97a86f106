// SPDX-License-Identifier: Apache-2.0
// A transmission phase as a conversation: the input is read as a list of requests, some of them wrong, that
// arrive in pieces and are answered in pieces. Every request that arrived whole gets exactly one reply of the
// right form, simple or structured as was negotiated, and the disk holds in the end what they left.

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>

#include "device/device.h"
#include "exports/nbd/check_request.h"
#include "exports/nbd/chunks.h"
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

// A request on its way, and what has come of its reply.
struct Expected {
  nbd::RequestHeader header;
  std::uint32_t error = 0;
  std::uint64_t content_bytes = 0;
  unsigned contexts = 0;
};
using Expectations = std::map<std::uint64_t, Expected>;

nbd::RequestHeader next_header(Input& input, std::uint64_t cookie) {
  nbd::RequestHeader header;
  header.cookie = cookie;
  header.command = static_cast<nbd::Command>(input.number(1) % 9);
  const std::uint64_t how = input.number(1);
  header.flags =
      how % 8 == 7 ? static_cast<std::uint16_t>(input.number(2) % 64) : static_cast<std::uint16_t>(how % 2);
  header.offset = how / 8 % 8 == 7 ? input.number(8) : input.number(3) % (k_size + 1);
  header.length =
      static_cast<std::uint32_t>(how / 64 == 3 ? input.number(3) % (300U << 10) : input.number(2) % 3000);
  if (header.command == nbd::Command::flush) header.offset = header.length = 0;
  return header;
}

// The error that is due. A RAM disk has no fast way of giving room.
std::uint32_t error_of(const nbd::RequestHeader& header, const nbd::Negotiated& negotiated) {
  const nbd::Verdict verdict = nbd::check_request(header, negotiated);
  if (!verdict.status.ok()) return nbd::wire_error(header, verdict.status);
  constexpr unsigned k_both = nbd::command_flag::k_fast_zero | nbd::command_flag::k_no_hole;
  const bool slow = header.command == nbd::Command::write_zeroes && (header.flags & k_both) == k_both;
  return slow && header.length > 0 ? 95 : 0;
}

// What the client sends, and what it may expect: the content of the disk is followed in `disk`.
Bytes compose(Input& input, const nbd::Negotiated& negotiated, Bytes& disk, Expectations& expected) {
  Bytes sent;
  for (std::uint64_t cookie = 1; !input.empty() && cookie < 200 && sent.size() < (2U << 20); ++cookie) {
    const nbd::RequestHeader header = next_header(input, cookie);
    const auto encoded = nbd::encode_request(header);
    sent.insert(sent.end(), encoded.begin(), encoded.end());
    if (header.command == nbd::Command::disconnect) break;

    Bytes payload;
    if (header.command == nbd::Command::write) {
      payload.assign(header.length, static_cast<std::byte>(cookie * 37 + header.length));
      sent.insert(sent.end(), payload.begin(), payload.end());
    }
    const std::uint32_t error = error_of(header, negotiated);
    expected[cookie] = {.header = header, .error = error};
    if (error != 0) continue;
    const auto begin = disk.begin() + static_cast<std::ptrdiff_t>(header.offset);
    if (header.command == nbd::Command::write) std::ranges::copy(payload, begin);
    if (header.command == nbd::Command::trim || header.command == nbd::Command::write_zeroes) {
      std::fill_n(begin, header.length, std::byte{0});
    }
  }
  return sent;
}

std::span<const std::byte> check_simple(std::span<const std::byte> got, const nbd::Negotiated& negotiated,
                                        Expectations& expected) {
  const auto found = expected.find(nbd::get<std::uint64_t>(got, 8));
  require(found != expected.end());
  const Expected& request = found->second;
  const auto error = nbd::get<std::uint32_t>(got, 4);
  require(error == request.error);
  require(!negotiated.structured_replies || (error == 0 && request.header.command != nbd::Command::read));
  got = got.subspan(nbd::k_simple_reply_bytes);
  if (error == 0 && request.header.command == nbd::Command::read) {
    require(got.size() >= request.header.length);
    got = got.subspan(request.header.length);
  }
  expected.erase(found);
  return got;
}

void check_status(std::span<const std::byte> payload, const nbd::Negotiated& negotiated, Expected& request) {
  require(payload.size() >= 12 && payload.size() % 8 == 4);
  const auto context = nbd::get<std::uint32_t>(payload, 0);
  require(context == 1 ? negotiated.allocation : context == 2 && negotiated.depth);
  require((request.contexts & context) == 0);
  request.contexts |= context;
  std::uint64_t covered = 0;
  for (std::size_t at = 4; at < payload.size(); at += 8) {
    require(nbd::get<std::uint32_t>(payload, at) != 0);
    covered += nbd::get<std::uint32_t>(payload, at);
  }
  require(covered <= request.header.length);
  require((request.header.flags & nbd::command_flag::k_req_one) == 0 || payload.size() == 12);
}

std::span<const std::byte> check_chunk(std::span<const std::byte> got, const nbd::Negotiated& negotiated,
                                       Expectations& expected) {
  require(negotiated.structured_replies && got.size() >= nbd::k_chunk_header_bytes);
  const auto found = expected.find(nbd::get<std::uint64_t>(got, 8));
  require(found != expected.end());
  Expected& request = found->second;
  const bool done = nbd::get<std::uint16_t>(got, 4) == nbd::k_chunk_done;
  const auto type = static_cast<nbd::ChunkType>(nbd::get<std::uint16_t>(got, 6));
  const auto length = nbd::get<std::uint32_t>(got, 16);
  got = got.subspan(nbd::k_chunk_header_bytes);
  require(got.size() >= length);
  const auto payload = got.first(length);
  if (type == nbd::ChunkType::error) {
    require(done && nbd::get<std::uint32_t>(payload, 0) == request.error);
  } else if (type == nbd::ChunkType::block_status) {
    check_status(payload, negotiated, request);
  } else if (type != nbd::ChunkType::none) {
    const bool hole = type == nbd::ChunkType::offset_hole;
    require(hole || type == nbd::ChunkType::offset_data);
    require(nbd::get<std::uint64_t>(payload, 0) == request.header.offset + request.content_bytes);
    request.content_bytes += hole ? nbd::get<std::uint32_t>(payload, 8) : length - 8;
    require(request.content_bytes <= request.header.length);
  }
  if (done && request.error == 0) {
    const bool read = request.header.command == nbd::Command::read;
    require(!read || request.content_bytes == request.header.length);
    const unsigned wanted = (negotiated.allocation ? 1U : 0U) | (negotiated.depth ? 2U : 0U);
    require(request.header.command != nbd::Command::block_status || request.contexts == wanted);
  }
  if (done) expected.erase(found);
  return got.subspan(length);
}

// The data of reads is not compared: it may show what a later request of the same batch wrote.
void check_replies(std::span<const std::byte> got, const nbd::Negotiated& negotiated,
                   Expectations& expected) {
  while (!got.empty()) {
    require(got.size() >= nbd::k_simple_reply_bytes);
    const auto magic = nbd::get<std::uint32_t>(got, 0);
    if (magic == nbd::k_structured_reply_magic) {
      got = check_chunk(got, negotiated, expected);
    } else {
      require(magic == nbd::k_simple_reply_magic);
      got = check_simple(got, negotiated, expected);
    }
  }
  require(expected.empty());
}

void clear(Fixture& fixture) {
  const IoStatus cleared = run_blocking(
      fixture.queue, [&](Io& io) { return fixture.device.discard(io, {0, k_size}, Durability::with_flush); });
  require(cleared.ok());
}

void converse(Fixture& fixture, const nbd::Negotiated& negotiated, Bytes sent, std::size_t piece,
              Bytes& got) {
  PiecesWire wire(std::move(sent), piece);
  nbd::Transmission transmission(wire, fixture.queue, negotiated, {.requests = 8, .bytes = 1 << 20});
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
  const bool structured = mode / 4 % 2 == 1;
  const nbd::Negotiated negotiated{.served = &fixture.served,
                                   .structured_replies = structured,
                                   .allocation = structured && mode / 8 % 2 == 1,
                                   .depth = structured && mode / 16 % 2 == 1};
  Bytes got;
  if (mode % 4 == 0) {
    // Bytes as they are: nothing may be expected but that it ends.
    const auto raw = std::as_bytes(std::span(data + 3, size - 3));
    converse(fixture, negotiated, {raw.begin(), raw.end()}, piece, got);
    return 0;
  }
  clear(fixture);
  Bytes disk(k_size);
  Expectations expected;
  Bytes sent = compose(input, negotiated, disk, expected);
  converse(fixture, negotiated, std::move(sent), std::max<std::size_t>(piece, 64), got);
  check_replies(got, negotiated, expected);

  // In the end the disk holds what the requests, in their order, left.
  Bytes now(k_size);
  const IoStatus read = run_blocking(fixture.queue, [&](Io& io) { return fixture.device.read(io, 0, now); });
  require(read.ok() && now == disk);
  return 0;
}
