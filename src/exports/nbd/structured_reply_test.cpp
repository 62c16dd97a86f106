// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "exports/nbd/read_part.h"
#include "exports/nbd/test_replies.h"
#include "stores/ram/ram_store.h"
#include "targets/error/error_target.h"
#include "targets/linear/linear_target.h"
#include "targets/table/table_target.h"
#include "targets/zero/zero_target.h"

namespace oxbow::nbd {
namespace {

constexpr std::size_t k_size = 2 << 20;
constexpr std::uint32_t k_eio = 5;
constexpr std::uint32_t k_einval = 22;
constexpr Negotiated k_structured{.structured_replies = true};

// Both ways of moving bytes: through buffers, and straight from and into memory.
class NbdStructured : public ::testing::TestWithParam<bool> {
 protected:
  TestDevice disk{k_size, GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Store, NbdStructured, ::testing::Values(false, true),
                         [](const auto& param) { return param.param ? "memory" : "buffered"; });

TEST_P(NbdStructured, EveryReadIsAnsweredStructured) {
  Session session(disk.device, k_structured);
  const Bytes data = pattern(k_size, 1);
  ASSERT_EQ(session.talk(request(Command::write, 1, 0, k_size) + data, 16), simple_reply(1));
  for (const std::uint32_t length : {1U, 511U, 4096U, 65536U, 65537U, 1U << 20, 2U << 20}) {
    const std::uint64_t offset = k_size - length;
    const ReceivedReply reply = ask(session, Command::read, length, offset, length);
    EXPECT_EQ(reply.error, 0U);
    EXPECT_TRUE(reply.data(offset, length) == Bytes(data.end() - length, data.end())) << length;
    EXPECT_EQ(reply.chunks.size(), !GetParam() && length > k_part_bytes ? 2U : 1U) << "as few as can be";
  }
  const ReceivedReply nothing = ask(session, Command::read, 9, 5, 0);
  EXPECT_EQ(nothing.chunks.size(), 1U);
  EXPECT_EQ(nothing.chunks[0].type, ChunkType::none);
}

TEST_P(NbdStructured, ErrorsAreAnsweredStructuredWithAText) {
  Session session(disk.device, k_structured, {.read_only = true});
  const ReceivedReply beyond = ask(session, Command::read, 1, k_size - 1, 2);
  EXPECT_EQ(beyond.error, k_einval);
  EXPECT_EQ(beyond.text, "the range goes beyond the end of the export");
  EXPECT_EQ(beyond.chunks.size(), 1U);
  const ReceivedReply flag = ask(session, Command::read, 2, 0, 512, command_flag::k_no_hole);
  EXPECT_EQ(flag.error, k_einval) << flag.text;
  const ReceivedReply change = ask(session, Command::trim, 3, 0, 512);
  EXPECT_EQ(change.error, 1U);
  EXPECT_EQ(change.text, "the export is read-only");
  ASSERT_TRUE(session.client.send(request(Command::write, 4, 0, 5) + Bytes(5)));
  EXPECT_EQ(receive_reply(session.client, 4).error, 1U);
  const ReceivedReply status = ask(session, Command::block_status, 5, 0, 512);
  EXPECT_EQ(status.error, k_einval);
  EXPECT_EQ(status.text, "no metadata context was selected");
  EXPECT_EQ(session.talk(request(Command::flush, 6, 0, 0), 16), simple_reply(6));
}

TEST_P(NbdStructured, DontFragmentGivesOneChunkOfContent) {
  TestDevice large(33 << 20, GetParam());
  Session session(large.device, k_structured);
  const Bytes data = pattern(32 << 20, 2);
  ASSERT_EQ(session.talk(request(Command::write, 1, 777, 32 << 20) + data, 16), simple_reply(1));
  for (const std::uint32_t length : {1U, 70'000U, 32U << 20}) {
    const ReceivedReply reply = ask(session, Command::read, 2, 777, length, command_flag::k_df);
    EXPECT_EQ(reply.chunks.size(), 1U);
    EXPECT_EQ(reply.data_chunks, 1U);
    EXPECT_TRUE(reply.data(777, length) == Bytes(data.begin(), data.begin() + length));
  }
}

TEST_P(NbdStructured, ReadErrorWithoutDataIsOneErrorChunk) {
  TestDevice failing(k_size);
  failing.store->fail_with(ENODEV);
  Session session(failing.device, k_structured);
  for (const unsigned flags : {0U, unsigned{command_flag::k_df}}) {
    for (const std::uint32_t length : {4096U, 1U << 20}) {
      const ReceivedReply reply = ask(session, Command::read, 1, 0, length, flags);
      EXPECT_EQ(reply.error, k_eio);
      EXPECT_TRUE(reply.content.empty());
    }
  }
  failing.store->fail_with(0);
  EXPECT_EQ(ask(session, Command::read, 2, 0, 4096).data(0, 4096), Bytes(4096)) << "the connection lives";
}

TEST(NbdStructuredParts, LargeReadsHoldLittleMemoryAndGoOnOneAfterTheOther) {
  TestDevice disk(32 << 20);
  // With room for two parts in flight, eight reads of 32 MiB are answered all the same.
  Session session(disk.device, k_structured, {.limits = {.requests = 4, .bytes = 2 << 20}});
  disk.store->fill(std::byte{0x77});
  Bytes sent;
  for (std::uint64_t i = 0; i < 8; ++i) sent = sent + request(Command::read, i, 0, 32 << 20);
  ASSERT_TRUE(session.client.send(sent));
  std::map<std::uint64_t, std::uint64_t> got;
  for (std::size_t done = 0; done < 8;) {
    const auto chunk = receive_chunk(session.client);
    ASSERT_TRUE(chunk);
    ASSERT_EQ(chunk->type, ChunkType::offset_data);
    ASSERT_LE(chunk->payload.size(), k_part_bytes + 8);
    EXPECT_EQ(get<std::uint64_t>(chunk->payload, 0), got[chunk->cookie]);
    got[chunk->cookie] += chunk->payload.size() - 8;
    EXPECT_EQ(chunk->done, got[chunk->cookie] == 32 << 20) << "the last one, and no other";
    if (chunk->done) ++done;
  }
}

// A wire that takes everything at once. Thread safety: none.
class GreedyWire final : public Wire {
 public:
  explicit GreedyWire(Bytes sent) : sent_(std::move(sent)) {}
  std::ptrdiff_t receive(std::span<std::byte> into) noexcept override {
    const std::size_t count = std::min(into.size(), sent_.size() - at_);
    if (count == 0) return -EAGAIN;
    std::ranges::copy(std::span(sent_).subspan(at_, count), into.begin());
    at_ += count;
    return static_cast<std::ptrdiff_t>(count);
  }
  std::ptrdiff_t send(std::span<const iovec> pieces) noexcept override {
    std::size_t bytes = 0;
    for (const iovec& each : pieces) bytes += each.iov_len;
    taken += bytes;
    return static_cast<std::ptrdiff_t>(bytes);
  }
  std::size_t available() noexcept override { return sent_.size() - at_; }

  std::uint64_t taken = 0;

 private:
  Bytes sent_;
  std::size_t at_ = 0;
};

TEST(NbdStructuredParts, AFastReaderGetsTurnsAndNotAllTheTime) {
  for (const bool memory : {false, true}) {
    TestDevice disk(32 << 20, memory);
    const Export served{.name = "", .device = &disk.device};
    Queue queue;
    Bytes sent;
    for (std::uint64_t i = 0; i < 16; ++i) sent = sent + request(Command::read, i, 0, 32 << 20);
    GreedyWire wire(sent);
    Transmission transmission(wire, queue, {.served = &served, .structured_replies = true});
    std::uint64_t before = 0;
    unsigned turns = 0;
    while (true) {
      const Interest wanted = transmission.step(true);
      EXPECT_LE(wire.taken - before, Replies::k_turn_bytes + (64U << 20)) << "what was queued, at most";
      before = wire.taken;
      if (!wanted.again && !wanted.send) break;
      ++turns;
    }
    EXPECT_GE(turns, 5U);
    EXPECT_GE(wire.taken, 16 * (std::uint64_t{32} << 20));
    transmission.end("done");
    EXPECT_TRUE(transmission.step(false).ended);
  }
}

TEST(NbdStructuredParts, ErrorInTheMiddleOfALargeReadComesWithItsOffset) {
  TestDevice disk(8 << 20);
  Session session(disk.device, k_structured);
  disk.store->fill(std::byte{0x33});
  disk.store->hold();
  ASSERT_TRUE(session.client.send(request(Command::read, 1, 0, 8 << 20)));
  while (disk.store->waiting() == 0) std::this_thread::yield();
  disk.store->release();
  ReceivedReply reply;
  for (int i = 0; i < 2; ++i) take_chunk(*receive_chunk(session.client), reply);
  disk.store->fail_with(EIO);
  while (reply.error == 0) {
    const auto chunk = receive_chunk(session.client);
    ASSERT_TRUE(chunk);
    take_chunk(*chunk, reply);
    ASSERT_EQ(chunk->done, reply.error != 0);
  }
  EXPECT_EQ(reply.error, k_eio);
  ASSERT_TRUE(reply.error_offset);
  EXPECT_EQ(reply.data(0, *reply.error_offset), Bytes(*reply.error_offset, std::byte{0x33}));
  disk.store->fail_with(0);
  EXPECT_EQ(ask(session, Command::read, 2, 0, 4).data(0, 4), Bytes(4, std::byte{0x33}));
}

TEST(NbdStructuredParts, AnUnreadablePlaceIsNamedExactly) {
  // 1 MiB of data, 64 KiB that cannot be read, the rest is zeros.
  auto ram = *RamStore::create({.size_bytes = 1 << 20});
  const auto line = [](std::uint64_t start, std::uint64_t length) {
    return TableLine{.start = start / 512, .length = length / 512};
  };
  std::vector<TableTarget::Part> parts;
  parts.push_back({line(0, 1 << 20), {std::make_shared<LinearTarget>(ram, "ram", Range{0, 1 << 20}, true)}});
  parts.push_back({line(1 << 20, 64 << 10), {std::make_shared<ErrorTarget>(64 << 10, true)}});
  parts.push_back({line((1 << 20) + (64 << 10), 1 << 20), {std::make_shared<ZeroTarget>(1 << 20, true)}});
  Device device(std::make_shared<TableTarget>(std::move(parts)), {.name = "mixed"});
  Session session(device, k_structured);
  const Bytes data = pattern(4096, 3);
  ASSERT_EQ(session.talk(request(Command::write, 1, (1 << 20) - 4096, 4096) + data, 16), simple_reply(1));

  const ReceivedReply whole = ask(session, Command::read, 2, 0, 2 << 20);
  EXPECT_EQ(whole.error, k_eio);
  EXPECT_EQ(whole.error_offset, 1U << 20);
  EXPECT_EQ(whole.data(0, 1 << 20), Bytes((1 << 20) - 4096) + data) << "all before it is there";
  EXPECT_EQ(whole.hole_chunks, 1U);
  const ReceivedReply small = ask(session, Command::read, 3, (1 << 20) - 512, 1024);
  EXPECT_EQ(small.error, k_eio);
  const std::uint64_t behind = (1 << 20) + (64 << 10);
  const ReceivedReply zeros = ask(session, Command::read, 4, behind, 1 << 20);
  EXPECT_EQ(zeros.data(behind, 1 << 20), Bytes(1 << 20));
  EXPECT_EQ(zeros.chunks.size(), 1U);
  EXPECT_EQ(zeros.hole_chunks, 1U);
}

// A RAM disk with every second page present, then a large hole.
class NbdHoles : public ::testing::Test {
 protected:
  NbdHoles() {
    expected = Bytes(4 << 20);
    const Bytes page = pattern(4096, 4);
    for (std::uint64_t at = 0; at < 256 << 10; at += 8192) {
      (void)session.talk(request(Command::write, 1, at, 4096) + page, 16);
      std::ranges::copy(page, expected.begin() + static_cast<std::ptrdiff_t>(at));
    }
  }
  Bytes at(std::uint64_t offset, std::size_t length) const {
    const auto first = expected.begin() + static_cast<std::ptrdiff_t>(offset);
    return {first, first + static_cast<std::ptrdiff_t>(length)};
  }

  std::shared_ptr<RamStore> ram = *RamStore::create({.size_bytes = 4 << 20});
  Device device{std::make_shared<LinearTarget>(ram, "ram", Range{0, 4 << 20}, true), {.name = "ram"}};
  Session session{device, k_structured};
  Bytes expected;
};

TEST_F(NbdHoles, AreToldAndNotSent) {
  const ReceivedReply hole = ask(session, Command::read, 2, 4096, 4096);
  ASSERT_EQ(hole.chunks.size(), 1U);
  EXPECT_EQ(hole.hole_chunks, 1U);
  EXPECT_TRUE(hole.chunks[0].done);
  const ReceivedReply mixed = ask(session, Command::read, 3, 0, 16384);
  EXPECT_EQ(mixed.data(0, 16384), at(0, 16384));
  EXPECT_EQ(mixed.hole_chunks, 2U);
  EXPECT_EQ(mixed.data_chunks, 2U);
  const ReceivedReply tail = ask(session, Command::read, 4, (256 << 10) - 8192, 2 << 20);
  EXPECT_EQ(tail.data((256 << 10) - 8192, 2 << 20), at((256 << 10) - 8192, 2 << 20));
  EXPECT_EQ(tail.chunks.size(), 2U);
}

TEST_F(NbdHoles, AreDataWhereTheyAreTooSmall) {
  const ReceivedReply reply = ask(session, Command::read, 2, 4096 - 10, 4096);
  EXPECT_EQ(reply.data(4096 - 10, 4096), at(4096 - 10, 4096));
  EXPECT_EQ(reply.data_chunks, 1U);
  EXPECT_EQ(reply.hole_chunks, 0U);
}

TEST_F(NbdHoles, AreDataForAClientThatWantsOneChunk) {
  for (const std::uint32_t length : {16384U, 1U << 20}) {
    const ReceivedReply reply = ask(session, Command::read, 2, 0, length, command_flag::k_df);
    EXPECT_EQ(reply.data(0, length), at(0, length));
    EXPECT_EQ(reply.chunks.size(), 1U);
    EXPECT_EQ(reply.data_chunks, 1U);
  }
}

TEST_F(NbdHoles, ManyOfThemAreReadAsTheyCome) {
  for (const std::uint32_t length : {40'000U, 100'000U, 200'000U, 3U << 20}) {
    const ReceivedReply reply = ask(session, Command::read, 2, 100, length);
    EXPECT_EQ(reply.data(100, length), at(100, length)) << length;
  }
}

TEST_F(NbdHoles, AreSentToAClientWithSimpleReplies) {
  Session simple(device, {});
  EXPECT_EQ(simple.talk(request(Command::read, 2, 0, 3 << 20), 16 + (3 << 20)),
            simple_reply(2) + at(0, 3 << 20));
}

}  // namespace
}  // namespace oxbow::nbd
