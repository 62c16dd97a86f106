// SPDX-License-Identifier: Apache-2.0
// What a client may send before the transmission phase. The first byte says in what pieces the rest arrives. Whatever
// comes: the answers are well-formed, bounded, and the same as when all arrives at once.

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
};

Outcome run(const nbd::Exports& exports, std::span<const std::byte> in, std::size_t piece) {
  nbd::Handshake handshake(exports);
  std::size_t taken = 0;
  while (taken < in.size() && handshake.state() == nbd::Handshake::State::haggling) {
    const auto part = in.subspan(taken, std::min(piece, in.size() - taken));
    const std::size_t now = handshake.feed(part);
    require(now == part.size() || handshake.state() != nbd::Handshake::State::haggling);
    taken += now;
  }
  require((handshake.negotiated().served != nullptr) ==
          (handshake.state() == nbd::Handshake::State::transmission));
  return {std::move(handshake.output()), handshake.state(), taken};
}

// Replies to options, one behind the other; what answers EXPORT_NAME comes last.
void check_answers(const Outcome& outcome) {
  std::span<const std::byte> rest(outcome.answers);
  rest = rest.subspan(18);
  while (rest.size() >= 20 && nbd::get<std::uint64_t>(rest, 0) == nbd::k_option_reply_magic) {
    const std::size_t length = 20 + nbd::get<std::uint32_t>(rest, 16);
    require(length <= rest.size());
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
  const Outcome whole = run(fixture.exports, in, in.size() + 1);
  check_answers(whole);
  require(whole.answers.size() <= 64 + 300 * in.size());
  const Outcome pieces = run(fixture.exports, in, 1 + data[0] % 64U);
  require(pieces.answers == whole.answers && pieces.state == whole.state && pieces.taken == whole.taken);
  return 0;
}
