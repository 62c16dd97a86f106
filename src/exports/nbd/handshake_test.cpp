// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/handshake.h"

#include <gtest/gtest.h>

#include "exports/nbd/test_haggling.h"

namespace oxbow::nbd {
namespace {

class NbdHandshake : public ::testing::Test, protected Haggling {};

TEST_F(NbdHandshake, GreetsFirst) {
  Handshake handshake(exports_);
  EXPECT_EQ(handshake.output().size(), 18U);
  EXPECT_EQ(get<std::uint16_t>(handshake.output(), 16), 3U);
}

TEST_F(NbdHandshake, GoAnswersExportThenAck) {
  EXPECT_EQ(talk(option(7, info_data("disk"))),
            reply(7, ReplyType::info, export_info(1 << 20, k_writable_flags)) + reply(7, ReplyType::ack));
  EXPECT_EQ(state_, k_transmission);
  EXPECT_EQ(got_.served->name, "disk");
}

TEST_F(NbdHandshake, InfoAnswersTheSameAndHagglesOn) {
  EXPECT_EQ(talk(option(6, info_data("o"))),
            reply(6, ReplyType::info, export_info(12345, k_writable_flags | 2)) + reply(6, ReplyType::ack));
  EXPECT_EQ(state_, k_haggling);
  EXPECT_EQ(got_.served, nullptr);
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
  for (const std::uint32_t number : {0U, 4U, 11U, 12U, 0x12345678U}) {
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

Bytes header(std::uint32_t number, std::uint32_t length) {
  Bytes out;
  put(out, k_option_magic);
  put(out, number);
  put(out, length);
  return out;
}

TEST_F(NbdHandshake, OptionDataOver64KiBAreDrainedAndRefused) {
  constexpr std::size_t k_most = 64 << 10;
  constexpr auto k_why = "an option has at most 64 KiB of data";
  const Bytes list = option(3);
  const Bytes listed = talk(list);
  for (const std::uint32_t number : {3U, 5U, 6U, 7U, 8U, 9U, 10U}) {
    EXPECT_EQ(talk(option(number, Bytes(k_most + 1)) + list),
              error(number, ReplyType::error_too_big, k_why) + listed)
        << number;
    EXPECT_EQ(talk(option(number, Bytes(1 << 20))), error(number, ReplyType::error_too_big, k_why)) << number;
    EXPECT_EQ(state_, k_haggling);
  }
  EXPECT_NE(talk(option(7, Bytes(k_most))), error(7, ReplyType::error_too_big, k_why));
  EXPECT_EQ(talk(option(99, Bytes(1 << 20)) + list),
            error(99, ReplyType::error_unsupported, "this server does not know the option") + listed);
  EXPECT_EQ(talk(option(2, Bytes(1 << 20))), reply(2, ReplyType::ack));
}

TEST_F(NbdHandshake, OptionDataOver1MiBEndIt) {
  for (const std::uint32_t number : {2U, 3U, 7U, 99U}) {
    for (const std::uint32_t length : {(1U << 20) + 1, 0x80000000U, 0xffffffffU}) {
      EXPECT_EQ(talk(header(number, length)), Bytes());
      EXPECT_EQ(state_, k_closed);
      EXPECT_EQ(why_, "an option with more than 1 MiB of data");
    }
  }
}

TEST_F(NbdHandshake, ExportNameOfAnyLength) {
  for (const std::size_t length : {4096U, 4097U, 65536U}) {
    EXPECT_EQ(talk(option(1, Bytes(length, std::byte{'x'}))), Bytes());
    EXPECT_EQ(state_, k_closed);
    EXPECT_EQ(why_, "the client asked for an export that does not exist") << length;
  }
  EXPECT_EQ(talk(header(1, 65537)), Bytes());
  EXPECT_EQ(why_, "an export's name of more than 64 KiB");
  EXPECT_EQ(talk(option(1, text(std::string_view("disk\0", 5)))), Bytes());
  EXPECT_EQ(why_, "the client asked for an export that does not exist");
}

TEST_F(NbdHandshake, NamesOf4096BytesAreServed) {
  const std::string name(4096, 'n');
  const Exports exports = *Exports::make({{.name = name, .device = &disk_.device}});
  for (const Bytes& in : {option(1, text(name)), option(7, info_data(name))}) {
    Handshake handshake(exports);
    (void)handshake.feed(flags(3) + in);
    EXPECT_EQ(handshake.state(), k_transmission);
    EXPECT_EQ(handshake.negotiated().served, exports.all().front());
  }
}

TEST_F(NbdHandshake, MoreThan128Options) {
  Bytes many;
  for (int i = 0; i < 128; ++i) many = many + option(i % 2 == 0 ? 3 : 99);
  (void)talk(many);
  EXPECT_EQ(state_, k_haggling);
  (void)talk(many + option(7, info_data("disk")));
  EXPECT_EQ(state_, k_closed);
  EXPECT_EQ(why_, "more than 128 options");
}

// A client that never takes its answers could else make them as many as it likes.
TEST_F(NbdHandshake, TakesNoMoreWhileManyAnswersAreToBeSent) {
  const Exports talkative =
      *Exports::make({{.name = "disk", .device = &disk_.device, .description = std::string(4096, 'x')}});
  constexpr std::size_t k_answer_bytes = 20 + 4 + 4 + 4096 + 20;
  Bytes in = flags(3);
  for (int i = 0; i < 100; ++i) in = in + option(3);
  Handshake handshake(talkative);
  std::span<const std::byte> left(in);
  std::size_t answered = 0;
  std::size_t most = 0;
  while (!left.empty()) {
    left = left.subspan(handshake.feed(left));
    most = std::max(most, handshake.output().size());
    answered += handshake.output().size();
    handshake.output().clear();
  }
  EXPECT_EQ(answered, 18 + 100 * k_answer_bytes);
  EXPECT_LT(most, (64U << 10) + k_answer_bytes);
  EXPECT_EQ(handshake.state(), k_haggling);
}

TEST_F(NbdHandshake, AServerThatStopsSaysSo) {
  constexpr auto k_why = "the server is stopping";
  Handshake handshake(exports_);
  handshake.output().clear();
  handshake.shut_down();
  Bytes expected;
  (void)handshake.feed(flags(3));
  for (const std::uint32_t number : {3U, 5U, 6U, 7U, 8U, 10U, 99U}) {
    (void)handshake.feed(option(number, info_data("disk")));
    expected = expected + error(number, ReplyType::error_shutdown, k_why);
  }
  EXPECT_EQ(handshake.state(), k_haggling);
  (void)handshake.feed(option(2));
  EXPECT_EQ(handshake.output(), expected + reply(2, ReplyType::ack));
  EXPECT_EQ(handshake.state(), k_closed);

  Handshake by_name(exports_);
  by_name.shut_down();
  (void)by_name.feed(flags(3) + option(1, text("disk")));
  EXPECT_EQ(by_name.state(), k_closed);
  EXPECT_EQ(by_name.why_closed(), k_why);
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

TEST(NbdExports, ArriveOnDemandAndStayWhereTheyAre) {
  TestDevice device(4096);
  Exports exports = *Exports::make({{.name = "a", .device = &device.device}});
  const Export* const first = exports.find("a");
  EXPECT_EQ(exports.find_or_make("b").error(), "") << "nobody makes any";
  int made = 0;
  exports.make_on_demand([&](std::string_view name) -> std::expected<Export, std::string> {
    if (name == "x") return std::unexpected("it is an x");
    ++made;
    return Export{.name = std::string(name), .device = &device.device};
  });
  EXPECT_EQ(exports.find_or_make("x").error(), "it is an x");
  EXPECT_EQ(exports.find("b"), nullptr) << "looking makes nothing";
  for (const char* name : {"b", "c", "d", "b"}) EXPECT_EQ((*exports.find_or_make(name))->name, name);
  EXPECT_EQ(made, 3);
  EXPECT_EQ(*exports.find_or_make("b"), exports.find("b"));
  EXPECT_EQ(*exports.find_or_make(""), first);
  EXPECT_EQ(exports.find("a"), first);
  ASSERT_EQ(exports.all().size(), 4U);
  EXPECT_EQ(exports.all().back()->name, "d");
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
