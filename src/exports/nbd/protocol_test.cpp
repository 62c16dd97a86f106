// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/protocol.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <initializer_list>
#include <span>

#include "exports/nbd/chunks.h"

namespace oxbow::nbd {
namespace {

std::vector<std::byte> bytes(std::initializer_list<int> values) {
  std::vector<std::byte> out;
  for (const int value : values) out.push_back(static_cast<std::byte>(value));
  return out;
}

TEST(NbdProtocol, GreetingIsAsInTheProtocolDocument) {
  std::vector<std::byte> out;
  put_greeting(out, handshake_flag::k_fixed_newstyle | handshake_flag::k_no_zeroes);
  EXPECT_EQ(out,
            bytes({'N', 'B', 'D', 'M', 'A', 'G', 'I', 'C', 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 3}));
}

TEST(NbdProtocol, OptionHeader) {
  const auto in = bytes({'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T', 0, 0, 0, 7, 0, 1, 2, 3});
  const auto header = decode_option(in);
  ASSERT_TRUE(header);
  EXPECT_EQ(header->option, Option::go);
  EXPECT_EQ(header->length, 0x10203U);
  auto wrong = in;
  wrong[7] = std::byte{'U'};
  EXPECT_FALSE(decode_option(wrong));
}

TEST(NbdProtocol, OptionReplies) {
  std::vector<std::byte> out;
  put_option_reply(out, Option::list, ReplyType::error_unsupported, "no");
  EXPECT_EQ(out,
            bytes({0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, 3, 0x80, 0, 0, 1, 0, 0, 0, 2, 'n', 'o'}));
  out.clear();
  put_option_reply(out, Option::go, ReplyType::ack, "");
  EXPECT_EQ(out, bytes({0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0}));
}

TEST(NbdProtocol, TextsAreCutAtTheProtocolsLimit) {
  std::vector<std::byte> out;
  put_option_reply(out, Option::go, ReplyType::error_unknown, std::string(5000, 'x'));
  EXPECT_EQ(out.size(), 20U + 4096U);
  EXPECT_EQ(get<std::uint32_t>(out, 16), 4096U);
}

TEST(NbdProtocol, InfoRequest) {
  const auto in = bytes({0, 0, 0, 2, 'h', 'd', 0, 3, 0, 3, 0, 1, 0, 99});
  const auto request = decode_info_request(in);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->name, "hd");
  EXPECT_TRUE(request->wants_block_size);
  EXPECT_TRUE(request->wants_name);
  EXPECT_FALSE(request->wants_description);
}

TEST(NbdProtocol, InfoRequestWhoseLengthsDoNotFitIsRefused) {
  const auto good = bytes({0, 0, 0, 2, 'h', 'd', 0, 1, 0, 3});
  ASSERT_TRUE(decode_info_request(good));
  for (std::size_t length = 0; length < good.size(); ++length) {
    EXPECT_FALSE(decode_info_request(std::span(good).first(length))) << length;
  }
  auto longer = good;
  longer.push_back(std::byte{0});
  EXPECT_FALSE(decode_info_request(longer));
  EXPECT_FALSE(decode_info_request(bytes({0xff, 0xff, 0xff, 0xff, 'h', 'd', 0, 0})));
  EXPECT_FALSE(decode_info_request(bytes({0, 0, 0, 0, 0xff, 0xff, 0, 0})));
}

TEST(NbdProtocol, Request) {
  const auto in = bytes({0x25, 0x60, 0x95, 0x13, 0,    1,    0,    1,    1,    2,    3, 4, 5,    6,
                         7,    8,    0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0, 0, 0x10, 0});
  const auto request = decode_request(in);
  ASSERT_TRUE(request);
  EXPECT_EQ(request->flags, command_flag::k_fua);
  EXPECT_EQ(request->command, Command::write);
  EXPECT_EQ(request->cookie, 0x0102030405060708U);
  EXPECT_EQ(request->offset, 0x1020304050607080U);
  EXPECT_EQ(request->length, 4096U);
  const auto again = encode_request(*request);
  EXPECT_TRUE(std::ranges::equal(again, in));
  auto wrong = in;
  wrong[0] = std::byte{0x26};
  EXPECT_FALSE(decode_request(wrong));
}

TEST(NbdProtocol, SimpleReply) {
  Reply reply;
  put_simple(reply, 0x0102030405060708, 28);
  const Chunk& chunk = reply.chunks.back();
  EXPECT_TRUE(std::ranges::equal(std::span(chunk.head).first(chunk.head_bytes),
                                 bytes({0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 1, 2, 3, 4, 5, 6, 7, 8})));
}

TEST(NbdProtocol, OnlyTheProtocolsErrorsGoOnTheWire) {
  EXPECT_EQ(wire_error(IoStatus{}), 0U);
  EXPECT_EQ(wire_error(IoStatus::error(EPERM)), 1U);
  EXPECT_EQ(wire_error(IoStatus::error(EROFS)), 1U);
  EXPECT_EQ(wire_error(IoStatus::error(EIO)), 5U);
  EXPECT_EQ(wire_error(IoStatus::error(ENOMEM)), 12U);
  EXPECT_EQ(wire_error(IoStatus::error(EINVAL)), 22U);
  EXPECT_EQ(wire_error(IoStatus::error(ENOSPC)), 28U);
  EXPECT_EQ(wire_error(IoStatus::error(EDQUOT)), 28U);
  EXPECT_EQ(wire_error(IoStatus::error(EOVERFLOW)), 75U);
  EXPECT_EQ(wire_error(IoStatus::error(ENOTSUP)), 95U);
  EXPECT_EQ(wire_error(IoStatus::error(ESHUTDOWN)), 108U);
  EXPECT_EQ(wire_error(IoStatus::error(ENODEV)), 5U);
  for (int number = 1; number < 200; ++number) {
    const std::uint32_t error = wire_error(IoStatus::error(number));
    EXPECT_TRUE(error == 1 || error == 5 || error == 12 || error == 22 || error == 28 || error == 75 ||
                error == 95 || error == 108)
        << number;
  }
}

TEST(NbdProtocol, SomeErrorsBelongToOneRequestOnly) {
  const auto error = [](Command command, unsigned flags, int number) {
    return wire_error({.flags = static_cast<std::uint16_t>(flags), .command = command},
                      IoStatus::error(number));
  };
  EXPECT_EQ(error(Command::write_zeroes, command_flag::k_fast_zero, EOPNOTSUPP), 95U);
  EXPECT_EQ(error(Command::write_zeroes, 0, EOPNOTSUPP), 5U);
  EXPECT_EQ(error(Command::write, 0, EOPNOTSUPP), 5U);
  EXPECT_EQ(error(Command::read, command_flag::k_df, EOVERFLOW), 75U);
  EXPECT_EQ(error(Command::read, 0, EOVERFLOW), 5U);
  EXPECT_EQ(error(Command::trim, 0, EPERM), 1U);
}

}  // namespace
}  // namespace oxbow::nbd
