// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "exports/nbd/test_session.h"

namespace oxbow::nbd {
namespace {

constexpr std::size_t k_size = 1 << 20;

Bytes stored(TestDevice& device, std::size_t at, std::size_t length) {
  const Bytes contents = device.store->contents();
  const auto piece = std::span(contents).subspan(at, length);
  return {piece.begin(), piece.end()};
}

// Both ways of moving bytes: through buffers, and straight from and into memory.
class NbdVanishingClient : public ::testing::TestWithParam<bool> {
 protected:
  TestDevice disk{k_size, GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Store, NbdVanishingClient, ::testing::Values(false, true),
                         [](const auto& param) { return param.param ? "memory" : "buffered"; });

TEST_P(NbdVanishingClient, ClientThatVanishesWithRepliesUnreadEndsAlone) {
  for (int round = 0; round < 20; ++round) {
    Session session(disk);
    Bytes sent;
    for (std::uint64_t i = 0; i < 8; ++i) sent = sent + request(Command::read, i, 0, k_size);
    ASSERT_TRUE(session.client.send(sent));
    EXPECT_NE(session.finish(), "");
  }
}

TEST(NbdVanishingClientPending, ClientThatVanishesIsWaitedForByItsRequests) {
  TestDevice disk(k_size);
  Session session(disk);
  disk.store->hold();
  const Bytes data = pattern(4096, 7);
  ASSERT_TRUE(
      session.client.send(request(Command::write, 1, 0, 4096) + data + request(Command::read, 2, 0, 4096)));
  while (disk.store->waiting() < 2) std::this_thread::yield();
  session.client.close();
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  disk.store->release();
  session.join();
  EXPECT_EQ(stored(disk, 0, 4096), data);
}

TEST_P(NbdVanishingClient, VanishingAtEachByteOfASmallWrite) {
  TestDevice small(8192, GetParam());
  const Bytes data = pattern(700, 8);
  const Bytes sent = request(Command::flush, 1, 0, 0) + request(Command::write, 2, 300, 700) + data +
                     request(Command::read, 3, 0, 4096);
  for (std::size_t cut = 0; cut <= sent.size(); ++cut) {
    small.store->fill(std::byte{0});
    Session session(small, false, {}, false);
    ASSERT_TRUE(session.client.send({sent.begin(), sent.begin() + static_cast<std::ptrdiff_t>(cut)}));
    session.client.close();
    session.start();
    session.join();
    const Bytes contents = small.store->contents();
    const bool whole = cut >= 28 + 28 + 700;
    ASSERT_TRUE(std::ranges::equal(std::span(contents).subspan(300, 700), whole ? data : Bytes(700))) << cut;
  }
}

TEST_P(NbdVanishingClient, VanishingInALargeWriteLeavesNoTornSector) {
  constexpr std::uint64_t k_offset = 1000;
  constexpr std::uint32_t k_length = 300'000;
  TestDevice small(320 << 10, GetParam());
  const Bytes data = pattern(k_length, 9);
  const Bytes sent = request(Command::write, 2, k_offset, k_length) + data;
  std::vector<std::size_t> cuts;
  for (std::size_t cut = 27; cut < sent.size(); cut += 16133) cuts.push_back(cut);
  for (std::size_t near = 0; near < 1100; near += 31)
    cuts.push_back(28 + (256 << 10) - k_offset - 500 + near);
  const std::size_t unit = GetParam() ? 512 : 256 << 10;
  for (const std::size_t cut : cuts) {
    small.store->fill(std::byte{0x11});
    Session session(small);
    // In two pieces, so that some of it arrives while the payload is being received.
    const auto middle = sent.begin() + static_cast<std::ptrdiff_t>(std::min(cut, std::size_t{100'000}));
    ASSERT_TRUE(session.client.send({sent.begin(), middle}));
    ASSERT_TRUE(session.client.send({middle, sent.begin() + static_cast<std::ptrdiff_t>(cut)}));
    session.finish();
    const Bytes contents = small.store->contents();
    for (std::uint64_t at = k_offset; at < k_offset + k_length;) {
      const std::uint64_t end = std::min<std::uint64_t>((at / unit + 1) * unit, k_offset + k_length);
      const auto stored = std::span(contents).subspan(at, end - at);
      const bool is_new = std::ranges::equal(stored, std::span(data).subspan(at - k_offset, end - at));
      const bool is_old = std::ranges::all_of(stored, [](std::byte each) { return each == std::byte{0x11}; });
      ASSERT_TRUE(is_new || is_old) << "cut " << cut << " at " << at;
      at = end;
    }
    ASSERT_EQ(contents[k_offset - 1], std::byte{0x11});
    ASSERT_EQ(contents[k_offset + k_length], std::byte{0x11});
  }
}

}  // namespace
}  // namespace oxbow::nbd
