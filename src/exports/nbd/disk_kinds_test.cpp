// SPDX-License-Identifier: Apache-2.0
// What every kind of device answers to the odd ones among requests.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "exports/nbd/block_status.h"
#include "exports/nbd/test_disks.h"
#include "exports/nbd/test_replies.h"

namespace oxbow::nbd {
namespace {

constexpr std::uint32_t k_einval = 22;
constexpr std::uint32_t k_enospc = 28;
constexpr std::uint32_t k_enotsup = 95;
constexpr Negotiated k_status{.structured_replies = true, .allocation = true};

class NbdDiskKinds : public ::testing::TestWithParam<DiskKind> {
 protected:
  static Bytes write(const Session& session, std::uint64_t at, const Bytes& data, std::uint16_t flags = 0) {
    return session.talk(request(Command::write, 1, at, static_cast<std::uint32_t>(data.size()), flags) + data,
                        16);
  }
  static Bytes read(const Session& session, std::uint64_t at, std::uint32_t length) {
    const Bytes reply = session.talk(request(Command::read, 2, at, length), 16 + length);
    if (reply.size() < 16 || Bytes(reply.begin(), reply.begin() + 16) != simple_reply(2)) return {};
    return {reply.begin() + 16, reply.end()};
  }
  static Bytes change(const Session& session, Command command, std::uint64_t at, std::uint32_t length,
                      unsigned flags = 0) {
    return session.talk(request(command, 3, at, length, static_cast<std::uint16_t>(flags)), 16);
  }
};
INSTANTIATE_TEST_SUITE_P(Of, NbdDiskKinds,
                         ::testing::Values(DiskKind::ram, DiskKind::file, DiskKind::direct, DiskKind::layer),
                         [](const auto& param) { return name_of(param.param); });

TEST_P(NbdDiskKinds, SizesThatAreNoMultipleOfAnything) {
  for (const std::uint64_t size : {1ULL, 511ULL, 513ULL, 4095ULL, 4097ULL, 65536ULL + 1, (1ULL << 20) - 1}) {
    Disk disk(GetParam(), size);
    Session session(disk.device, {});
    const Bytes all = pattern(size, static_cast<unsigned>(size));
    EXPECT_EQ(write(session, 0, all), simple_reply(1)) << size;
    EXPECT_EQ(write(session, size - 1, Bytes(1, std::byte{0x5a})), simple_reply(1));
    EXPECT_EQ(read(session, size - 1, 1), Bytes(1, std::byte{0x5a}));
    EXPECT_EQ(write(session, size - 1, {all.back()}, command_flag::k_fua), simple_reply(1));
    EXPECT_TRUE(read(session, 0, static_cast<std::uint32_t>(size)) == all) << size;
    EXPECT_EQ(session.talk(request(Command::read, 2, size, 1), 16), simple_reply(2, k_einval));
    EXPECT_EQ(write(session, size - 1, Bytes(2)), simple_reply(1, k_enospc));

    Session mapping(disk.device, k_status);
    const ReceivedReply mapped = ask(mapping, Command::block_status, 4, size - 1, 1);
    ASSERT_EQ(mapped.status.at(1).size(), 1U);
    EXPECT_EQ(mapped.status.at(1)[0], (std::pair{1U, 0U})) << "the last byte is data";

    const std::uint32_t tail = static_cast<std::uint32_t>(std::min<std::uint64_t>(size, 5000));
    EXPECT_EQ(change(session, Command::trim, size - tail, tail), simple_reply(3));
    EXPECT_EQ(change(session, Command::write_zeroes, size - tail, tail), simple_reply(3));
    EXPECT_EQ(read(session, size - tail, tail), Bytes(tail)) << size;
    EXPECT_TRUE(read(session, 0, static_cast<std::uint32_t>(size - tail)) ==
                Bytes(all.begin(), all.end() - tail));
  }
}

TEST_P(NbdDiskKinds, OneByteRequestsNeedNoBlockSize) {
  Disk disk(GetParam(), 65536);
  Session session(disk.device, {});
  const Bytes around = pattern(16384, 1);
  ASSERT_EQ(write(session, 0, around), simple_reply(1));
  for (const std::uint64_t at : {0ULL, 511ULL, 512ULL, 4095ULL, 4096ULL, 9999ULL}) {
    EXPECT_EQ(read(session, at, 1), Bytes(1, around[at]));
    EXPECT_EQ(write(session, at, Bytes(1, std::byte{0xa5})), simple_reply(1));
    EXPECT_EQ(write(session, at, Bytes(1, std::byte{0xa6}), command_flag::k_fua), simple_reply(1));
    EXPECT_EQ(read(session, at, 1), Bytes(1, std::byte{0xa6}));
    EXPECT_EQ(change(session, Command::write_zeroes, at, 1), simple_reply(3));
    EXPECT_EQ(read(session, at, 1), Bytes(1));
    EXPECT_EQ(change(session, Command::write_zeroes, at, 1, command_flag::k_no_hole), simple_reply(3));
    EXPECT_EQ(change(session, Command::trim, at, 1), simple_reply(3));
    EXPECT_EQ(change(session, Command::cache, at, 1), simple_reply(3));
    EXPECT_EQ(write(session, at, Bytes(1, around[at])), simple_reply(1));
  }
  EXPECT_EQ(change(session, Command::flush, 0, 0), simple_reply(3));
  EXPECT_EQ(read(session, 0, 16384), around) << "neighbours are untouched";
}

TEST_P(NbdDiskKinds, TrimAndZeroesOfFourGigabytes) {
  constexpr std::uint64_t k_size = (std::uint64_t{5} << 30) + 777;
  constexpr std::uint32_t k_most = ~std::uint32_t{0};
  Disk disk(GetParam(), k_size);
  Session session(disk.device, {});
  const Bytes data = pattern(10'000, 1);
  for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{1}, k_size - k_most}) {
    const std::uint64_t end = offset + k_most;
    ASSERT_EQ(write(session, end - 10'000, data), simple_reply(1));
    EXPECT_EQ(change(session, Command::trim, offset, k_most), simple_reply(3)) << offset;
    EXPECT_EQ(change(session, Command::write_zeroes, offset, k_most), simple_reply(3)) << offset;
    EXPECT_EQ(read(session, end - 10'000, 10'000), Bytes(10'000));
    EXPECT_EQ(change(session, Command::write_zeroes, offset, k_most, command_flag::k_fast_zero),
              simple_reply(3));
  }
  EXPECT_EQ(change(session, Command::write_zeroes, k_size - k_most + 1, k_most), simple_reply(3, k_enospc));
}

TEST_P(NbdDiskKinds, SlowFastZeroesAreRefusedAndChangeNothing) {
  Disk disk(GetParam(), 1 << 20);
  Session session(disk.device, k_status);
  const Bytes data = pattern(1 << 20, 1);
  ASSERT_EQ(write(session, 0, data), simple_reply(1));
  // Nobody knows yet that this file system zeroes with room without writing.
  const unsigned flags = command_flag::k_fast_zero | command_flag::k_no_hole;
  const ReceivedReply slow = ask(session, Command::write_zeroes, 2, 0, 1 << 20, flags);
  EXPECT_EQ(slow.error, k_enotsup);
  EXPECT_EQ(slow.text, "the zeros would have to be written");
  EXPECT_TRUE(ask(session, Command::read, 3, 0, 1 << 20).data(0, 1 << 20) == data);
  if (GetParam() == DiskKind::layer) {
    EXPECT_EQ(ask(session, Command::write_zeroes, 4, 100, 4000, command_flag::k_fast_zero).error, k_enotsup);
    EXPECT_TRUE(ask(session, Command::read, 5, 0, 8192).data(0, 8192) ==
                Bytes(data.begin(), data.begin() + 8192));
  }
  EXPECT_EQ(change(session, Command::write_zeroes, 0, 1 << 20, command_flag::k_fast_zero), simple_reply(3));
  EXPECT_EQ(ask(session, Command::read, 6, 0, 1 << 20).data(0, 1 << 20), Bytes(1 << 20));
}

TEST_P(NbdDiskKinds, NoHoleReallyAllocates) {
  Disk disk(GetParam(), 4 << 20);
  Session session(disk.device, {});
  const auto room = [&] {
    if (disk.ram != nullptr) return disk.ram->allocated_bytes();
    struct stat found{};
    must(::stat(disk.path.c_str(), &found));
    return static_cast<std::uint64_t>(found.st_blocks) * 512;
  };
  ASSERT_EQ(change(session, Command::write_zeroes, 0, 4 << 20), simple_reply(3));
  const std::uint64_t before = room();
  EXPECT_LT(before, 1U << 20);
  EXPECT_EQ(change(session, Command::write_zeroes, 5, 2 << 20, command_flag::k_no_hole | command_flag::k_fua),
            simple_reply(3));
  EXPECT_GE(room(), before + (2 << 20) - 4096);
  if (disk.layer != nullptr) {
    EXPECT_EQ(disk.layer->states().state(3), ClusterState::data);
    EXPECT_EQ(disk.layer->states().state(3 + 512), ClusterState::zero);
  }
  EXPECT_TRUE(read(session, 0, 4 << 20) == Bytes(4 << 20));
}

TEST_P(NbdDiskKinds, FuaIsAcceptedOnEveryCommand) {
  Disk disk(GetParam(), 1 << 20);
  Session session(disk.device, k_status);
  constexpr std::uint16_t k_fua = command_flag::k_fua;
  EXPECT_EQ(write(session, 0, pattern(5000, 1), k_fua), simple_reply(1));
  EXPECT_EQ(change(session, Command::trim, 0, 4096, k_fua), simple_reply(3));
  EXPECT_EQ(change(session, Command::write_zeroes, 0, 4096, k_fua), simple_reply(3));
  EXPECT_EQ(change(session, Command::cache, 0, 4096, k_fua), simple_reply(3));
  EXPECT_EQ(change(session, Command::flush, 0, 0, k_fua), simple_reply(3));
  EXPECT_EQ(ask(session, Command::read, 4, 0, 4096, k_fua).error, 0U);
  EXPECT_EQ(ask(session, Command::block_status, 5, 0, 4096, k_fua).error, 0U);
}

// The client goes away after every byte of a write: it happened whole or not at all.
TEST_P(NbdDiskKinds, VanishingAtEachByteOfAPayloadPublishesNothing) {
  Disk disk(GetParam(), 1 << 20);
  const Bytes data = pattern(600, 8);
  const Bytes sent = request(Command::write, 2, 4000, 600) + data;
  for (std::size_t cut = 0; cut < sent.size(); ++cut) {
    Session session(disk.device, {}, {.start_now = false});
    ASSERT_TRUE(session.client.send({sent.begin(), sent.begin() + static_cast<std::ptrdiff_t>(cut)}));
    session.client.close();
    session.start();
    session.join();
  }
  if (disk.ram != nullptr) {
    EXPECT_EQ(disk.ram->allocated_bytes(), 0U);
  }
  if (disk.layer != nullptr) {
    EXPECT_EQ(disk.layer->states().state(0), ClusterState::absent);
    EXPECT_EQ(disk.layer->states().state(1), ClusterState::absent);
  }
  Session session(disk.device, {});
  EXPECT_TRUE(read(session, 0, 1 << 20) == Bytes(1 << 20));
}

// Of a large one, chunks of 256 KiB are there or not.
TEST_P(NbdDiskKinds, VanishingInALargePayloadPublishesWholeChunksOnly) {
  constexpr std::uint32_t k_length = 300'000;
  constexpr std::uint64_t k_boundary = 256 << 10;
  const Bytes data = pattern(k_length, 9);
  const Bytes sent = request(Command::write, 2, 1000, k_length) + data;
  for (const std::size_t cut : {28UL, 29UL, 70'000UL, k_boundary - 1000 + 27, k_boundary - 1000 + 28,
                                k_boundary - 1000 + 29, sent.size() - 1, sent.size()}) {
    Disk disk(GetParam(), 1 << 20);
    {
      Session session(disk.device, {}, {.start_now = false});
      std::thread sender([&] {
        (void)session.client.send({sent.begin(), sent.begin() + static_cast<std::ptrdiff_t>(cut)});
        session.client.stop_sending();
      });
      session.start();
      session.join();
      sender.join();
    }
    const bool first = cut >= 28 + k_boundary - 1000;
    Bytes expected(1 << 20);
    if (first) std::copy_n(data.begin(), k_boundary - 1000, expected.begin() + 1000);
    if (cut == sent.size()) std::ranges::copy(data, expected.begin() + 1000);
    Session session(disk.device, {});
    EXPECT_TRUE(read(session, 0, 1 << 20) == expected) << cut;
    if (disk.layer != nullptr && !first) {
      EXPECT_EQ(disk.layer->states().state(0), ClusterState::absent);
    }
    if (disk.ram != nullptr && !first) {
      EXPECT_EQ(disk.ram->allocated_bytes(), 0U);
    }
  }
}

// RAM disks and layers of that size are not made.
TEST(NbdDiskOfSizeZero, HoldsNothing) {
  Disk disk(DiskKind::file, 0);
  Session session(disk.device, k_status);
  EXPECT_EQ(ask(session, Command::read, 1, 0, 1).error, k_einval);
  EXPECT_EQ(ask(session, Command::read, 1, 0, 0).error, 0U);
  EXPECT_EQ(ask(session, Command::trim, 1, 0, 1).error, k_einval);
  EXPECT_EQ(ask(session, Command::write_zeroes, 1, 0, 1).error, k_enospc);
  EXPECT_EQ(ask(session, Command::block_status, 1, 0, 1).error, k_einval);
  ASSERT_TRUE(session.client.send(request(Command::write, 1, 0, 1) + Bytes(1)));
  EXPECT_EQ(receive_reply(session.client, 1).error, k_enospc);
  EXPECT_EQ(session.talk(request(Command::flush, 3, 0, 0), 16), simple_reply(3));
  EXPECT_EQ(session.talk(request(Command::write_zeroes, 3, 0, 0), 16), simple_reply(3));
}

}  // namespace
}  // namespace oxbow::nbd
