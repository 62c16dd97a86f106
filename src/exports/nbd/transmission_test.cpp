// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <bit>

#include "exports/nbd/test_session.h"

namespace oxbow::nbd {
namespace {

constexpr std::size_t k_size = 1 << 20;
constexpr std::uint32_t k_eio = 5;
constexpr std::uint32_t k_einval = 22;

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
// The same with a payload in chunks: through buffers a chunk is there or not, into memory each sector is.

}  // namespace
}  // namespace oxbow::nbd
