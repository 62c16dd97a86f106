// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/transmission.h"

#include <gtest/gtest.h>

#include <bit>

#include "exports/nbd/test_session.h"

namespace oxbow::nbd {
namespace {

constexpr std::size_t k_size = 1 << 20;
constexpr std::uint32_t k_eperm = 1;
constexpr std::uint32_t k_eio = 5;
constexpr std::uint32_t k_einval = 22;
constexpr std::uint32_t k_enospc = 28;

// One that this server doesn't know.
Command other_command(std::uint16_t number) { return std::bit_cast<Command>(number); }

Bytes stored(TestDevice& device, std::size_t at, std::size_t length) {
  const Bytes contents = device.store->contents();
  const auto piece = std::span(contents).subspan(at, length);
  return {piece.begin(), piece.end()};
}

// Both ways of moving bytes: through buffers, and straight from and into memory.
class NbdTransmission : public ::testing::TestWithParam<bool> {
 protected:
  TestDevice disk{k_size, GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Store, NbdTransmission, ::testing::Values(false, true),
                         [](const auto& param) { return param.param ? "memory" : "buffered"; });

TEST_P(NbdTransmission, EveryCommand) {
  Session session(disk);
  const Bytes data = pattern(4096, 1);
  EXPECT_EQ(session.talk(request(Command::write, 7, 8192, 4096) + data, 16), simple_reply(7));
  EXPECT_EQ(session.talk(request(Command::read, 8, 8192, 4096), 16 + 4096), simple_reply(8) + data);
  EXPECT_EQ(session.talk(request(Command::flush, 9, 0, 0), 16), simple_reply(9));
  EXPECT_EQ(session.talk(request(Command::write_zeroes, 10, 8192, 1024), 16), simple_reply(10));
  EXPECT_EQ(session.talk(request(Command::trim, 11, 10240, 2048), 16), simple_reply(11));
  const Bytes expected = Bytes(1024) + Bytes(data.begin() + 1024, data.begin() + 2048) + Bytes(2048);
  EXPECT_EQ(session.talk(request(Command::read, 12, 8192, 4096), 16 + 4096), simple_reply(12) + expected);
  EXPECT_TRUE(session.client.send(request(Command::disconnect, 13, 0, 0)));
  EXPECT_TRUE(session.client.at_end());
  EXPECT_EQ(session.join(), "");
}

TEST_P(NbdTransmission, FuaIsTakenOnEveryCommandAndWritesThrough) {
  Session session(disk);
  const Bytes data = pattern(100, 2);
  EXPECT_EQ(session.talk(request(Command::write, 1, 11, 100, command_flag::k_fua) + data, 16),
            simple_reply(1));
  EXPECT_EQ(disk.store->durable_writes(), 1U);
  EXPECT_EQ(session.talk(request(Command::read, 2, 11, 100, command_flag::k_fua), 116),
            simple_reply(2) + data);
  EXPECT_EQ(session.talk(request(Command::flush, 3, 0, 0, command_flag::k_fua), 16), simple_reply(3));
  EXPECT_EQ(session.talk(request(Command::trim, 4, 0, 10, command_flag::k_fua), 16), simple_reply(4));
  EXPECT_EQ(session.talk(
                request(Command::write_zeroes, 5, 0, 10, command_flag::k_fua | command_flag::k_no_hole), 16),
            simple_reply(5));
  // A payload in chunks is durable too: each chunk.
  const Bytes large = pattern(300 << 10, 3);
  EXPECT_EQ(session.talk(request(Command::write, 6, 0, 300 << 10, command_flag::k_fua) + large, 16),
            simple_reply(6));
  EXPECT_GE(disk.store->durable_writes(), 3U);
  EXPECT_EQ(stored(disk, 0, large.size()), large);
}

TEST_P(NbdTransmission, NoHoleAllocates) {
  Session session(disk);
  EXPECT_EQ(session.talk(request(Command::write_zeroes, 1, 0, 4096), 16), simple_reply(1));
  EXPECT_EQ(disk.store->allocations(), 0U);
  EXPECT_EQ(session.talk(request(Command::write_zeroes, 2, 0, 4096, command_flag::k_no_hole), 16),
            simple_reply(2));
  EXPECT_EQ(disk.store->allocations(), 1U);
}

struct Refused {
  RequestHeader header;
  std::uint32_t error;
};

TEST_P(NbdTransmission, RefusedRequestsAreAnsweredAndTheNextOneIsServed) {
  constexpr std::uint64_t k_end = k_size;
  constexpr std::uint64_t k_wrap = ~std::uint64_t{0} - 4095;
  constexpr std::uint32_t k_over = k_max_payload_bytes + 1;
  const std::vector<Refused> cases{
      {{0, Command::read, 1, k_end, 1}, k_einval},
      {{0, Command::read, 2, k_end - 1, 2}, k_einval},
      {{0, Command::read, 3, k_wrap, 4096}, k_einval},
      {{0, Command::read, 4, k_wrap, 8192}, k_einval},
      {{0, Command::read, 5, 0, k_over}, k_einval},
      {{0, Command::read, 6, 0, ~0U}, k_einval},
      {{0, Command::write, 7, k_end, 1}, k_enospc},
      {{0, Command::write, 8, k_end - 4095, 4096}, k_enospc},
      {{0, Command::write, 9, k_wrap, 8192}, k_enospc},
      {{0, Command::write, 10, 0, k_over}, k_einval},
      {{0, Command::trim, 11, k_end - 1, 2}, k_enospc},
      {{0, Command::trim, 12, 1, ~0U}, k_enospc},
      {{0, Command::write_zeroes, 13, k_wrap, ~0U}, k_enospc},
      {{2, Command::write, 14, 0, 512}, k_einval},          // NO_HOLE is for zeroes only
      {{4, Command::read, 15, 0, 512}, k_einval},           // DF was not negotiated
      {{16, Command::write_zeroes, 16, 0, 512}, k_einval},  // FAST_ZERO neither
      {{0x8000, Command::flush, 17, 0, 0}, k_einval},
      {{0, Command::flush, 18, 1, 0}, k_einval},
      {{0, Command::flush, 19, 0, 1}, k_einval},
      {{0, other_command(5), 20, 0, 512}, k_einval},  // CACHE
      {{0, other_command(7), 21, 0, 512}, k_einval},  // BLOCK_STATUS
      {{0, other_command(0xffff), 22, 0, 0}, k_einval},
  };
  Session session(disk);
  for (const Refused& each : cases) {
    const auto encoded = encode_request(each.header);
    Bytes sent(encoded.begin(), encoded.end());
    if (each.header.command == Command::write) sent = sent + Bytes(each.header.length, std::byte{0xee});
    EXPECT_EQ(session.talk(sent, 16), simple_reply(each.header.cookie, each.error)) << each.header.cookie;
    EXPECT_EQ(session.talk(request(Command::read, 99, 0, 8), 24), simple_reply(99) + Bytes(8))
        << each.header.cookie;
  }
  EXPECT_EQ(disk.store->contents(), Bytes(k_size)) << "nothing was written";
}

TEST_P(NbdTransmission, ReadOnlyRefusesChanges) {
  Session session(disk, true);
  EXPECT_EQ(session.talk(request(Command::write, 1, 0, 4) + Bytes(4), 16), simple_reply(1, k_eperm));
  EXPECT_EQ(session.talk(request(Command::write, 2, 0, 200 << 10) + Bytes(200 << 10), 16),
            simple_reply(2, k_eperm));
  EXPECT_EQ(session.talk(request(Command::trim, 3, 0, 4), 16), simple_reply(3, k_eperm));
  EXPECT_EQ(session.talk(request(Command::write_zeroes, 4, 0, 4), 16), simple_reply(4, k_eperm));
  EXPECT_EQ(session.talk(request(Command::flush, 5, 0, 0), 16), simple_reply(5));
  EXPECT_EQ(session.talk(request(Command::read, 6, 0, 4), 20), simple_reply(6) + Bytes(4));
}

TEST_P(NbdTransmission, EmptyRequestsSucceed) {
  Session session(disk);
  for (const Command command : {Command::read, Command::write, Command::trim, Command::write_zeroes}) {
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{5}, std::uint64_t{k_size}}) {
      EXPECT_EQ(session.talk(request(command, offset, offset, 0), 16), simple_reply(offset));
    }
  }
}

TEST_P(NbdTransmission, LastBytesOfAnOddSize) {
  TestDevice odd(12345, GetParam());
  Session session(odd);
  const Bytes data = pattern(345, 4);
  EXPECT_EQ(session.talk(request(Command::write, 1, 12000, 345) + data, 16), simple_reply(1));
  EXPECT_EQ(session.talk(request(Command::read, 2, 12000, 345), 361), simple_reply(2) + data);
  EXPECT_EQ(session.talk(request(Command::trim, 3, 12344, 1), 16), simple_reply(3));
}

TEST_P(NbdTransmission, WrongMagicEndsTheConnection) {
  Session session(disk);
  Bytes wrong = request(Command::read, 1, 0, 4);
  wrong[3] = std::byte{0};
  EXPECT_EQ(session.talk(request(Command::read, 2, 0, 4) + wrong, 20), simple_reply(2) + Bytes(4));
  EXPECT_TRUE(session.client.at_end());
  EXPECT_EQ(session.join(), "a request without the protocol's magic number");
}

TEST_P(NbdTransmission, BatchesAreReceivedAndAnsweredTogether) {
  Session session(disk, false, {}, false);
  Bytes sent;
  Bytes expected;
  for (std::uint64_t i = 0; i < 32; ++i) {
    const Bytes data = pattern(512, static_cast<unsigned>(i));
    sent = sent + request(Command::write, i, i * 512, 512) + data;
    expected = expected + simple_reply(i);
  }
  for (std::uint64_t i = 0; i < 32; ++i) {
    sent = sent + request(Command::read, i, i * 512, 512);
    expected = expected + simple_reply(i) + pattern(512, static_cast<unsigned>(i));
  }
  ASSERT_TRUE(session.client.send(sent));
  session.start();
  EXPECT_EQ(session.client.receive(expected.size()), expected);
  session.finish();
  EXPECT_LE(session.counters().receive_calls, 3U) << "one for 64 requests, and the one that finds the end";
  EXPECT_LE(session.counters().send_calls, 5U) << "one for every 16 replies";
}

TEST_P(NbdTransmission, LargeWritesOfAnyAlignmentInAnyPieces) {
  TestDevice large(40 << 20, GetParam());
  Session session(large);
  const std::vector<std::pair<std::uint64_t, std::uint32_t>> ranges{{0, 32 << 20},
                                                                    {0, 65 << 10},
                                                                    {511, (64 << 10) + 4097},
                                                                    {(256 << 10) - 1, (256 << 10) + 2},
                                                                    {777, 1 << 20},
                                                                    {(40 << 20) - 100'001, 100'001}};
  unsigned seed = 10;
  for (const auto& [offset, length] : ranges) {
    const Bytes data = pattern(length, ++seed);
    const Bytes sent = request(Command::write, seed, offset, length) + data;
    const std::size_t piece = length > (2 << 20) ? sent.size() : 1 + seed * 977;
    for (std::size_t at = 0; at < sent.size(); at += piece) {
      const auto from = sent.begin() + static_cast<std::ptrdiff_t>(at);
      ASSERT_TRUE(
          session.client.send({from, from + static_cast<std::ptrdiff_t>(std::min(piece, sent.size() - at))}));
    }
    EXPECT_EQ(session.client.receive(16), simple_reply(seed));
    EXPECT_EQ(session.talk(request(Command::read, 1, offset, length), 16 + length), simple_reply(1) + data);
  }
  session.finish();
  for (const std::size_t written : large.store->writes())
    EXPECT_LE(written, 256U << 10) << "chunks are bounded";
  if (GetParam()) {
    EXPECT_LT(large.store->writes().size(), 8U) << "the rest went into memory without a copy";
  }
}

TEST_P(NbdTransmission, ErrorOfAChunkIsAnsweredOnceAndTheRestIsDrained) {
  disk.store->fail_with(ENODEV);
  Session session(disk);
  const Bytes data = pattern(600 << 10, 5);
  const bool durable = GetParam();  // so that memory, too, is written by the device
  const std::uint16_t flags = durable ? command_flag::k_fua : std::uint16_t{0};
  EXPECT_EQ(session.talk(request(Command::write, 1, 0, 600 << 10, flags) + data, 16), simple_reply(1, k_eio));
  disk.store->fail_with(0);
  EXPECT_EQ(session.talk(request(Command::read, 2, 0, 4), 20), simple_reply(2) + Bytes(4));
  EXPECT_TRUE(session.client.quiet());
}

TEST(NbdTransmissionPending, ReadErrorHasNoPayload) {
  TestDevice disk(k_size);
  disk.store->fail_with(EIO);
  Session session(disk);
  EXPECT_EQ(session.talk(request(Command::read, 1, 0, 4096), 16), simple_reply(1, k_eio));
  EXPECT_TRUE(session.client.quiet());
  disk.store->hold();
  ASSERT_TRUE(session.client.send(request(Command::read, 2, 0, 4096)));
  while (disk.store->waiting() == 0) std::this_thread::yield();
  disk.store->release();
  EXPECT_EQ(session.client.receive(16), simple_reply(2, k_eio));
  EXPECT_TRUE(session.client.quiet());
}

TEST(NbdTransmissionPending, LaterRequestsGoOnMeanwhile) {
  TestDevice disk(k_size);
  Session session(disk);
  disk.store->hold();
  const Bytes data = pattern(4096, 6);
  // An unknown command needs no store: its answer overtakes.
  EXPECT_EQ(session.talk(request(Command::write, 1, 0, 4096) + data + request(other_command(9), 2, 0, 0), 16),
            simple_reply(2, k_einval));
  EXPECT_TRUE(session.client.quiet());
  disk.store->release();
  EXPECT_EQ(session.client.receive(16), simple_reply(1));
  EXPECT_EQ(stored(disk, 0, 4096), data);
}

TEST(NbdTransmissionPending, PayloadsStayWhereTheyAreUntilTheyAreWritten) {
  TestDevice disk(8 << 20);
  Session session(disk);
  disk.store->hold();
  Bytes sent;
  Bytes expected;
  // More than a receive buffer holds, small and large ones mixed.
  for (std::uint64_t i = 0; i < 100; ++i) {
    const std::size_t length = i % 10 == 9 ? 70'000 : 20'000;
    sent = sent + request(Command::write, i, i * 80'000, static_cast<std::uint32_t>(length)) +
           pattern(length, static_cast<unsigned>(i));
  }
  std::thread writer([&] { EXPECT_TRUE(session.client.send(sent)); });
  while (disk.store->waiting() < 100) std::this_thread::yield();
  writer.join();
  EXPECT_TRUE(session.client.quiet(0));
  disk.store->release();
  EXPECT_EQ(session.client.receive(1600).size(), 1600U);
  const Bytes contents = disk.store->contents();
  for (std::uint64_t i = 0; i < 100; ++i) {
    const std::size_t length = i % 10 == 9 ? 70'000 : 20'000;
    EXPECT_TRUE(std::ranges::equal(std::span(contents).subspan(i * 80'000, length),
                                   pattern(length, static_cast<unsigned>(i))))
        << i;
  }
}

TEST(NbdTransmissionPending, RequestsInFlightAreBounded) {
  TestDevice disk(k_size);
  Session session(disk, false, {.requests = 8, .bytes = 64 << 20});
  disk.store->hold();
  Bytes sent;
  for (std::uint64_t i = 0; i < 100; ++i)
    sent = sent + request(Command::write, i, i, 1) + Bytes(1, std::byte{1});
  ASSERT_TRUE(session.client.send(sent));
  while (disk.store->waiting() < 8) std::this_thread::yield();
  EXPECT_TRUE(session.client.quiet());
  EXPECT_EQ(disk.store->waiting(), 8U);
  disk.store->release();
  EXPECT_EQ(session.client.receive(1600).size(), 1600U);
}

TEST(NbdTransmissionPending, BytesInFlightAreBoundedToo) {
  TestDevice disk(k_size);
  Session session(disk, false, {.requests = 128, .bytes = 100'000});
  disk.store->hold();
  Bytes sent;
  for (std::uint64_t i = 0; i < 32; ++i) sent = sent + request(Command::read, i, 0, 50'000);
  ASSERT_TRUE(session.client.send(sent));
  while (disk.store->waiting() < 2) std::this_thread::yield();
  EXPECT_TRUE(session.client.quiet());
  EXPECT_EQ(disk.store->waiting(), 2U);
  disk.store->release();
  EXPECT_EQ(session.client.receive(32 * 50'016).size(), 32U * 50'016U);
}

TEST_P(NbdTransmission, SlowReaderIsServedInTheEnd) {
  Session session(disk, false, {.requests = 16, .bytes = 4 << 20});
  disk.store->fill(std::byte{0x5a});
  Bytes sent;
  for (std::uint64_t i = 0; i < 64; ++i) sent = sent + request(Command::read, i, 0, k_size);
  ASSERT_TRUE(session.client.send(sent));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  for (std::uint64_t i = 0; i < 64; ++i) {
    ASSERT_EQ(session.client.receive(16), simple_reply(i));
    ASSERT_EQ(session.client.receive(k_size), Bytes(k_size, std::byte{0x5a}));
  }
}

TEST_P(NbdTransmission, ClientThatStopsSendingGetsItsAnswers) {
  Session session(disk);
  ASSERT_TRUE(session.client.send(request(Command::read, 1, 0, k_size)));
  session.client.stop_sending();
  EXPECT_EQ(session.client.receive(16 + k_size), simple_reply(1) + Bytes(k_size));
  EXPECT_TRUE(session.client.at_end());
}

TEST_P(NbdTransmission, ClientThatVanishesWithRepliesUnreadEndsAlone) {
  for (int round = 0; round < 20; ++round) {
    Session session(disk);
    Bytes sent;
    for (std::uint64_t i = 0; i < 8; ++i) sent = sent + request(Command::read, i, 0, k_size);
    ASSERT_TRUE(session.client.send(sent));
    EXPECT_NE(session.finish(), "");
  }
}

TEST(NbdTransmissionPending, ClientThatVanishesIsWaitedForByItsRequests) {
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

TEST(NbdTransmissionPending, DisconnectWaitsForWhatIsInFlight) {
  TestDevice disk(k_size);
  Session session(disk);
  disk.store->hold();
  ASSERT_TRUE(session.client.send(request(Command::read, 1, 0, 512) + request(Command::disconnect, 2, 0, 0)));
  while (disk.store->waiting() < 1) std::this_thread::yield();
  EXPECT_TRUE(session.client.quiet());
  disk.store->release();
  EXPECT_EQ(session.client.receive(528), simple_reply(1) + Bytes(512));
  EXPECT_TRUE(session.client.at_end());
  EXPECT_EQ(session.join(), "");
}

TEST_P(NbdTransmission, StopEndsAnIdleConnection) {
  Session session(disk);
  EXPECT_EQ(session.talk(request(Command::read, 1, 0, 4), 20), simple_reply(1) + Bytes(4));
  session.stop();
  EXPECT_TRUE(session.client.at_end());
  EXPECT_NE(session.join(), "");
}

// The client goes away after every byte of a session with a small write: it happened whole or not at all.
TEST_P(NbdTransmission, VanishingAtEachByteOfASmallWrite) {
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

// The same with a payload in chunks: through buffers a chunk is there or not, into memory each sector is.
TEST_P(NbdTransmission, VanishingInALargeWriteLeavesNoTornSector) {
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
