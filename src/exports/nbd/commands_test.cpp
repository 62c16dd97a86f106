// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <bit>

#include "exports/nbd/test_session.h"

namespace oxbow::nbd {
namespace {

constexpr std::size_t k_size = 1 << 20;
constexpr std::uint32_t k_eperm = 1;
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
class NbdCommands : public ::testing::TestWithParam<bool> {
 protected:
  TestDevice disk{k_size, GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Store, NbdCommands, ::testing::Values(false, true),
                         [](const auto& param) { return param.param ? "memory" : "buffered"; });

TEST_P(NbdCommands, EveryCommand) {
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

TEST_P(NbdCommands, FuaIsTakenOnEveryCommandAndWritesThrough) {
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

TEST_P(NbdCommands, NoHoleAllocates) {
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

TEST_P(NbdCommands, RefusedRequestsAreAnsweredAndTheNextOneIsServed) {
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
      {{0, Command::trim, 11, k_end - 1, 2}, k_einval},
      {{0, Command::trim, 12, 1, ~0U}, k_einval},
      {{0, Command::write_zeroes, 13, k_wrap, ~0U}, k_enospc},
      {{2, Command::write, 14, 0, 512}, k_einval},          // NO_HOLE is for zeroes only
      {{4, Command::read, 15, 0, 512}, k_einval},           // DF was not negotiated
      {{32, Command::write_zeroes, 16, 0, 512}, k_einval},  // no flag at all
      {{16, Command::write, 16, 0, 512}, k_einval},         // FAST_ZERO is for zeroes only
      {{0x8000, Command::flush, 17, 0, 0}, k_einval},
      {{0, Command::flush, 18, 1, 0}, k_einval},
      {{0, Command::flush, 19, 0, 1}, k_einval},
      {{0, Command::cache, 20, k_end - 1, 2}, k_einval},
      {{0, Command::cache, 20, k_wrap, 8192}, k_einval},
      {{4, Command::cache, 20, 0, 512}, k_einval},
      {{0, other_command(8), 20, 0, 512}, k_einval},
      {{0, Command::block_status, 21, 0, 512}, k_einval},  // no context
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

TEST_P(NbdCommands, ReadOnlyRefusesChanges) {
  Session session(disk, true);
  EXPECT_EQ(session.talk(request(Command::write, 1, 0, 4) + Bytes(4), 16), simple_reply(1, k_eperm));
  EXPECT_EQ(session.talk(request(Command::write, 2, 0, 200 << 10) + Bytes(200 << 10), 16),
            simple_reply(2, k_eperm));
  EXPECT_EQ(session.talk(request(Command::trim, 3, 0, 4), 16), simple_reply(3, k_eperm));
  EXPECT_EQ(session.talk(request(Command::write_zeroes, 4, 0, 4), 16), simple_reply(4, k_eperm));
  EXPECT_EQ(session.talk(request(Command::flush, 5, 0, 0), 16), simple_reply(5));
  EXPECT_EQ(session.talk(request(Command::read, 6, 0, 4), 20), simple_reply(6) + Bytes(4));
}

TEST_P(NbdCommands, EmptyRequestsSucceed) {
  Session session(disk);
  for (const Command command : {Command::read, Command::write, Command::trim, Command::write_zeroes}) {
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{5}, std::uint64_t{k_size}}) {
      EXPECT_EQ(session.talk(request(command, offset, offset, 0), 16), simple_reply(offset));
    }
  }
}

TEST_P(NbdCommands, LastBytesOfAnOddSize) {
  TestDevice odd(12345, GetParam());
  Session session(odd);
  const Bytes data = pattern(345, 4);
  EXPECT_EQ(session.talk(request(Command::write, 1, 12000, 345) + data, 16), simple_reply(1));
  EXPECT_EQ(session.talk(request(Command::read, 2, 12000, 345), 361), simple_reply(2) + data);
  EXPECT_EQ(session.talk(request(Command::trim, 3, 12344, 1), 16), simple_reply(3));
}

}  // namespace
}  // namespace oxbow::nbd
