// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/handshake.h"

#include <gtest/gtest.h>

#include "exports/nbd/test_device.h"

namespace oxbow::nbd {
namespace {

using Bytes = std::vector<std::byte>;
constexpr std::uint16_t k_writable_flags = 0x016d;  // HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN

Bytes option(std::uint32_t number, const Bytes& data = {}) {
  Bytes out;
  put(out, k_option_magic);
  put(out, number);
  put(out, static_cast<std::uint32_t>(data.size()));
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

Bytes text(std::string_view value) {
  Bytes out;
  put(out, value);
  return out;
}

Bytes info_data(std::string_view name, std::initializer_list<std::uint16_t> wanted = {}) {
  Bytes out;
  put(out, static_cast<std::uint32_t>(name.size()));
  put(out, name);
  put(out, static_cast<std::uint16_t>(wanted.size()));
  for (const std::uint16_t each : wanted) put(out, each);
  return out;
}

Bytes reply(std::uint32_t number, ReplyType type, const Bytes& data = {}) {
  Bytes out;
  put_option_reply(out, static_cast<Option>(number), type, static_cast<std::uint32_t>(data.size()));
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

Bytes error(std::uint32_t number, ReplyType type, std::string_view why) {
  return reply(number, type, text(why));
}

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

Bytes flags(std::uint32_t value) {
  Bytes out;
  put(out, value);
  return out;
}

Bytes export_info(std::uint64_t size, std::uint16_t transmission) {
  Bytes out;
  put(out, std::uint16_t{0});
  put(out, size);
  put(out, transmission);
  return out;
}

class NbdHandshake : public ::testing::Test {
 protected:
  // What the server answers to `in`; the client's flags 3 go before it unless `raw`.
  Bytes talk(const Bytes& in, bool raw = false) {
    Handshake handshake(exports_);
    handshake.output().clear();
    const Bytes all = raw ? in : flags(3) + in;
    consumed_ = handshake.feed(all) - (raw ? 0 : 4);
    finish(handshake);
    return handshake.output();
  }
  void finish(Handshake& handshake) {
    state_ = handshake.state();
    why_ = handshake.why_closed();
    chosen_ = handshake.chosen();
  }

  TestDevice disk_{1 << 20};
  TestDevice other_{12345};
  Exports exports_ = *Exports::make({{.name = "disk", .device = &disk_.device, .description = "the disk"},
                                     {.name = "o", .device = &other_.device, .read_only = true}});
  Handshake::State state_{};
  std::string why_;
  const Export* chosen_ = nullptr;
  std::size_t consumed_ = 0;
};

constexpr auto k_haggling = Handshake::State::haggling;
constexpr auto k_transmission = Handshake::State::transmission;
constexpr auto k_closed = Handshake::State::closed;

TEST_F(NbdHandshake, GreetsFirst) {
  Handshake handshake(exports_);
  EXPECT_EQ(handshake.output().size(), 18U);
  EXPECT_EQ(get<std::uint16_t>(handshake.output(), 16), 3U);
}

TEST_F(NbdHandshake, GoAnswersExportThenAck) {
  EXPECT_EQ(talk(option(7, info_data("disk"))),
            reply(7, ReplyType::info, export_info(1 << 20, k_writable_flags)) + reply(7, ReplyType::ack));
  EXPECT_EQ(state_, k_transmission);
  EXPECT_EQ(chosen_->name, "disk");
}

TEST_F(NbdHandshake, InfoAnswersTheSameAndHagglesOn) {
  EXPECT_EQ(talk(option(6, info_data("o"))),
            reply(6, ReplyType::info, export_info(12345, k_writable_flags | 2)) + reply(6, ReplyType::ack));
  EXPECT_EQ(state_, k_haggling);
  EXPECT_EQ(chosen_, nullptr);
}

TEST_F(NbdHandshake, InfoOnRequest) {
  Bytes block;
  put(block, std::uint16_t{3});
  put(block, std::uint32_t{1});
  put(block, std::uint32_t{4096});
  put(block, std::uint32_t{32 << 20});
  Bytes name;
  put(name, std::uint16_t{1});
  put(name, "disk");
  Bytes description;
  put(description, std::uint16_t{2});
  put(description, "the disk");
  EXPECT_EQ(talk(option(6, info_data("", {3, 2, 1, 77}))),
            reply(6, ReplyType::info, export_info(1 << 20, k_writable_flags)) +
                reply(6, ReplyType::info, name) + reply(6, ReplyType::info, description) +
                reply(6, ReplyType::info, block) + reply(6, ReplyType::ack));
}

TEST_F(NbdHandshake, ExportNameWithAndWithoutZeroes) {
  Bytes head;
  put(head, std::uint64_t{1 << 20});
  put(head, k_writable_flags);
  EXPECT_EQ(talk(option(1, text("disk"))), head);
  EXPECT_EQ(state_, k_transmission);
  EXPECT_EQ(talk(flags(1) + option(1, text("disk")), true), head + Bytes(124));
  EXPECT_EQ(state_, k_transmission);
  EXPECT_EQ(talk(option(1)), head) << "no name: the default";
}

TEST_F(NbdHandshake, UnknownNames) {
  EXPECT_EQ(talk(option(7, info_data("no"))), error(7, ReplyType::error_unknown, "there is no export 'no'"));
  EXPECT_EQ(state_, k_haggling);
  EXPECT_EQ(talk(option(6, info_data("no"))), error(6, ReplyType::error_unknown, "there is no export 'no'"));
  EXPECT_EQ(talk(option(1, text("no"))), Bytes());
  EXPECT_EQ(state_, k_closed);
  EXPECT_EQ(why_, "the client asked for an export that does not exist");
}

TEST_F(NbdHandshake, List) {
  Bytes disk;
  put(disk, std::uint32_t{4});
  put(disk, "diskthe disk");
  Bytes other;
  put(other, std::uint32_t{1});
  put(other, "o");
  EXPECT_EQ(talk(option(3)), reply(3, ReplyType::server, disk) + reply(3, ReplyType::server, other) +
                                 reply(3, ReplyType::ack));
  EXPECT_EQ(talk(option(3, text("x"))), error(3, ReplyType::error_invalid, "the option LIST has no data"));
  EXPECT_EQ(state_, k_haggling);
}

TEST_F(NbdHandshake, AbortIsAcknowledged) {
  EXPECT_EQ(talk(option(2)), reply(2, ReplyType::ack));
  EXPECT_EQ(state_, k_closed);
  EXPECT_EQ(why_, "");
}

TEST_F(NbdHandshake, OtherOptionsAreDrainedAndRefused) {
  for (const std::uint32_t number : {0U, 4U, 5U, 8U, 9U, 10U, 11U, 12U, 0x12345678U}) {
    EXPECT_EQ(talk(option(number, Bytes(1000)) + option(7, info_data("disk"))),
              error(number, ReplyType::error_unsupported, "this server does not know the option") +
                  reply(7, ReplyType::info, export_info(1 << 20, k_writable_flags)) +
                  reply(7, ReplyType::ack))
        << number;
    EXPECT_EQ(state_, k_transmission);
  }
}

TEST_F(NbdHandshake, WrongDataOfGo) {
  const auto k_invalid = "the lengths in the option's data do not fit together";
  EXPECT_EQ(talk(option(7)), error(7, ReplyType::error_invalid, k_invalid));
  EXPECT_EQ(talk(option(7, info_data("disk") + text("x"))), error(7, ReplyType::error_invalid, k_invalid));
  EXPECT_EQ(talk(option(7, info_data(std::string(4097, 'x')))),
            error(7, ReplyType::error_too_big, "an export's name has at most 4096 bytes"));
  EXPECT_EQ(talk(option(7, info_data(std::string_view("di\0k", 4)))),
            error(7, ReplyType::error_invalid, "an export's name has no zero bytes"));
  EXPECT_EQ(state_, k_haggling);
  EXPECT_EQ(talk(option(7, info_data(std::string(4096, 'x')))),
            error(7, ReplyType::error_unknown, "there is no export '" + std::string(256, 'x') + "'"));
}

TEST_F(NbdHandshake, Limits) {
  Bytes too_long;
  put(too_long, k_option_magic);
  put(too_long, std::uint32_t{99});
  put(too_long, std::uint32_t{65537});
  EXPECT_EQ(talk(too_long), Bytes());
  EXPECT_EQ(state_, k_closed);
  EXPECT_EQ(why_, "an option with more than 64 KiB of data");

  EXPECT_EQ(talk(option(99, Bytes(65536))).size(), 20U + 36U);
  EXPECT_EQ(state_, k_haggling);

  Bytes many;
  for (int i = 0; i < 128; ++i) many = many + option(3);
  (void)talk(many);
  EXPECT_EQ(state_, k_haggling);
  (void)talk(many + option(3));
  EXPECT_EQ(state_, k_closed);
  EXPECT_EQ(why_, "more than 128 options");
}

TEST_F(NbdHandshake, Garbage) {
  EXPECT_EQ(talk(flags(4) + option(3), true), Bytes());
  EXPECT_EQ(state_, k_closed);
  EXPECT_EQ(why_, "the client sent flags that were not offered");
  EXPECT_EQ(talk(flags(0x10003) + option(3), true), Bytes());
  EXPECT_EQ(state_, k_closed);
  EXPECT_EQ(talk(Bytes(64, std::byte{0x41})), Bytes());
  EXPECT_EQ(state_, k_closed);
  EXPECT_EQ(why_, "an option without the protocol's magic number");
}

TEST_F(NbdHandshake, PiecesOfAnySizeGiveTheSameAnswers) {
  const Bytes in = flags(3) + option(3) + option(8) + option(6, info_data("no", {1})) +
                   option(99, Bytes(50)) + option(7, info_data("disk", {3}));
  const Bytes whole = talk(in, true);
  for (std::size_t piece = 1; piece < in.size(); ++piece) {
    Handshake handshake(exports_);
    handshake.output().clear();
    for (std::size_t at = 0; at < in.size(); at += piece) {
      const auto part = std::span(in).subspan(at, std::min(piece, in.size() - at));
      ASSERT_EQ(handshake.feed(part), part.size());
    }
    EXPECT_EQ(handshake.output(), whole) << piece;
    EXPECT_EQ(handshake.state(), k_transmission);
  }
}

TEST_F(NbdHandshake, WhatFollowsTheLastOptionIsLeft) {
  const Bytes go = option(7, info_data("disk"));
  (void)talk(go + Bytes(28));
  EXPECT_EQ(consumed_, go.size());
}

TEST_F(NbdHandshake, RefusalTellsWhy) {
  Handshake handshake(exports_, "enough is enough");
  handshake.output().clear();
  (void)handshake.feed(flags(3) + option(7, info_data("disk")) + option(3) + option(2));
  EXPECT_EQ(handshake.output(), error(7, ReplyType::error_policy, "enough is enough") +
                                    error(3, ReplyType::error_policy, "enough is enough") +
                                    reply(2, ReplyType::ack));
  Handshake by_name(exports_, "enough is enough");
  (void)by_name.feed(flags(3) + option(1));
  EXPECT_EQ(by_name.state(), k_closed);
  EXPECT_EQ(by_name.why_closed(), "enough is enough");
}

TEST(NbdExports, DefaultIsTheOneWithoutANameOrTheFirst) {
  TestDevice device(4096);
  const auto named =
      *Exports::make({{.name = "a", .device = &device.device}, {.name = "b", .device = &device.device}});
  EXPECT_EQ(named.find("")->name, "a");
  EXPECT_EQ(named.find("b")->name, "b");
  EXPECT_EQ(named.find("c"), nullptr);
  const auto with_default =
      *Exports::make({{.name = "a", .device = &device.device}, {.name = "", .device = &device.device}});
  EXPECT_EQ(with_default.find("")->name, "");
}

TEST(NbdExports, MistakesAreNamed) {
  TestDevice device(4096);
  const auto text_of = [](std::vector<Export> exports) {
    return Exports::make(std::move(exports)).error().text();
  };
  EXPECT_EQ(text_of({}), "cannot serve NBD: exports: there is none to offer");
  EXPECT_EQ(text_of({{.name = "a", .device = &device.device}, {.name = "a", .device = &device.device}}),
            "cannot offer export: a: another export has the same name");
  EXPECT_EQ(text_of({{.name = "", .device = &device.device, .preferred_block_bytes = 1000}}),
            "cannot offer export: (no name): the preferred block size has to be a power of two from 512 "
            "bytes to 32 "
            "MiB");
  EXPECT_EQ(text_of({{.name = std::string("a\0b", 3), .device = &device.device}}).substr(0, 21),
            "cannot offer export: ");
}

}  // namespace
}  // namespace oxbow::nbd
