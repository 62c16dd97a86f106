// SPDX-License-Identifier: Apache-2.0
// What a client may send before the transmission phase. The first byte says in what pieces the rest arrives, and
// whether the server asks for TLS; then everything behind STARTTLS counts as encrypted. Whatever comes: the answers
// are well-formed, bounded, and the same as when all arrives at once; nothing is granted in the clear that needs TLS,
// and no context without structured replies.

#include <cstdint>
#include <cstdlib>
#include <memory>

#include "device/device.h"
#include "exports/nbd/handshake.h"
#include "os/queue.h"
#include "stores/ram/ram_store.h"
#include "targets/linear/linear_target.h"

namespace {

using namespace oxbow;
using Bytes = std::vector<std::byte>;

void require(bool condition) {
  if (!condition) std::abort();
}

// Lives as long as the process.
struct Fixture {
  Queue queue;
  Device device{
      std::make_shared<LinearTarget>(*RamStore::create({.size_bytes = 4096}), "ram", Range{0, 4096}, true),
      Device::Options{}, queue};
  nbd::Exports exports = *nbd::Exports::make({{.name = "disk", .device = &device, .description = "a disk"},
                                              {.name = "ro", .device = &device, .read_only = true}});
};

struct Outcome {
  Bytes answers;
  nbd::Handshake::State state;
  std::size_t taken;
  bool secured = false;
};

void check_negotiated(const nbd::Handshake& handshake, nbd::Handshake::Tls tls) {
  const nbd::Negotiated got = handshake.negotiated();
  require((got.served != nullptr) == (handshake.state() == nbd::Handshake::State::transmission));
  if (got.allocation || got.depth) require(got.served != nullptr && got.structured_replies);
  if (got.served != nullptr) require(got.encrypted == (tls == nbd::Handshake::Tls::required));
}

Outcome run(const nbd::Exports& exports, std::span<const std::byte> in, std::size_t piece,
            nbd::Handshake::Tls tls) {
  nbd::Handshake handshake(exports, {}, tls);
  std::size_t taken = 0;
  bool secured = false;
  while (taken < in.size()) {
    if (handshake.state() == nbd::Handshake::State::starting_tls) {
      require(!secured && handshake.feed(in.subspan(taken)) == 0);
      handshake.secured();
      secured = true;
    }
    if (handshake.state() != nbd::Handshake::State::haggling) break;
    const auto part = in.subspan(taken, std::min(piece, in.size() - taken));
    const std::size_t now = handshake.feed(part);
    require(now == part.size() || handshake.state() != nbd::Handshake::State::haggling);
    taken += now;
  }
  check_negotiated(handshake, tls);
  return {std::move(handshake.output()), handshake.state(), taken, secured};
}

// Replies to options, one behind the other; what answers EXPORT_NAME comes last.
void check_answers(const Outcome& outcome, nbd::Handshake::Tls tls) {
  const bool only_clear = tls == nbd::Handshake::Tls::required && !outcome.secured;
  std::span<const std::byte> rest(outcome.answers);
  rest = rest.subspan(18);
  while (rest.size() >= 20 && nbd::get<std::uint64_t>(rest, 0) == nbd::k_option_reply_magic) {
    const std::size_t length = 20 + nbd::get<std::uint32_t>(rest, 16);
    require(length <= rest.size());
    const auto type = static_cast<nbd::ReplyType>(nbd::get<std::uint32_t>(rest, 12));
    require(!only_clear || type == nbd::ReplyType::ack || type == nbd::ReplyType::error_tls_required ||
            type == nbd::ReplyType::error_invalid || type == nbd::ReplyType::error_too_big);
    rest = rest.subspan(length);
  }
  const bool by_name = outcome.state == nbd::Handshake::State::transmission;
  require(rest.empty() || (by_name && (rest.size() == 10 || rest.size() == 134)));
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Fixture fixture;
  if (size == 0) return 0;
  const auto in = std::as_bytes(std::span(data + 1, size - 1));
  const auto tls = (data[0] & 0x80U) != 0 ? nbd::Handshake::Tls::required : nbd::Handshake::Tls::none;
  const Outcome whole = run(fixture.exports, in, in.size() + 1, tls);
  check_answers(whole, tls);
  require(whole.answers.size() <= 64 + 300 * in.size());
  const Outcome pieces = run(fixture.exports, in, 1 + data[0] % 64U, tls);
  require(pieces.answers == whole.answers && pieces.state == whole.state && pieces.taken == whole.taken);
  return 0;
}
