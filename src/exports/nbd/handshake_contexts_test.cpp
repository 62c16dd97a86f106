// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "exports/nbd/test_haggling.h"

namespace oxbow::nbd {
namespace {

constexpr std::uint32_t k_list = 9;
constexpr std::uint32_t k_set = 10;
constexpr auto k_allocation = "base:allocation";
constexpr auto k_depth = "qemu:allocation-depth";
constexpr std::uint16_t k_send_df = 1U << 7;

// A client that has structured replies already.
class NbdContexts : public ::testing::Test, protected Haggling {
 protected:
  Bytes talk_structured(const Bytes& in) {
    const Bytes all = talk(option(8) + in);
    const Bytes ack = reply(8, ReplyType::ack);
    EXPECT_EQ(Bytes(all.begin(), all.begin() + 20), ack);
    return {all.begin() + 20, all.end()};
  }
  // Which contexts are selected after `in` and GO.
  std::string selected_by(const Bytes& in, std::string_view name = "disk") {
    (void)talk_structured(in + option(7, info_data(name)));
    EXPECT_EQ(state_, k_transmission);
    return std::string(got_.allocation ? "allocation" : "") + (got_.depth ? " depth" : "");
  }
};

TEST_F(NbdContexts, StructuredRepliesAreAcknowledgedAndKnownAfterwards) {
  EXPECT_EQ(talk(option(8) + option(8)), reply(8, ReplyType::ack) + reply(8, ReplyType::ack));
  (void)talk(option(8) + option(7, info_data("disk")));
  EXPECT_TRUE(got_.structured_replies);
  (void)talk(option(7, info_data("disk")));
  EXPECT_FALSE(got_.structured_replies);
}

TEST_F(NbdContexts, StructuredReplyHasNoData) {
  EXPECT_EQ(talk(option(8, text("x")) + option(7, info_data("disk"))),
            error(8, ReplyType::error_invalid, "the option STRUCTURED_REPLY has no data") +
                reply(7, ReplyType::info, export_info(1 << 20, k_writable_flags)) + reply(7, ReplyType::ack));
  EXPECT_FALSE(got_.structured_replies);
}

TEST_F(NbdContexts, OnlyWithStructuredRepliesIsDfOffered) {
  EXPECT_EQ(talk_structured(option(7, info_data("disk"))),
            reply(7, ReplyType::info, export_info(1 << 20, k_writable_flags | k_send_df)) +
                reply(7, ReplyType::ack));
  Bytes by_name;
  put(by_name, std::uint64_t{1 << 20});
  put(by_name, static_cast<std::uint16_t>(k_writable_flags | k_send_df));
  EXPECT_EQ(talk_structured(option(1, text("disk"))), by_name);
  const Bytes info = option(6, info_data("disk"));
  EXPECT_EQ(talk(info + option(8) + info),
            reply(6, ReplyType::info, export_info(1 << 20, k_writable_flags)) + reply(6, ReplyType::ack) +
                reply(8, ReplyType::ack) +
                reply(6, ReplyType::info, export_info(1 << 20, k_writable_flags | k_send_df)) +
                reply(6, ReplyType::ack))
      << "INFO tells what GO would";
}

TEST_F(NbdContexts, NothingWithoutStructuredReplies) {
  constexpr auto k_why = "metadata contexts are only to be had with structured replies";
  const Bytes data = context_data("disk", {k_allocation});
  EXPECT_EQ(talk(option(k_list, data)), error(k_list, ReplyType::error_invalid, k_why));
  EXPECT_EQ(talk(option(k_set, data) + option(7, info_data("disk"))),
            error(k_set, ReplyType::error_invalid, k_why) +
                reply(7, ReplyType::info, export_info(1 << 20, k_writable_flags)) + reply(7, ReplyType::ack));
  EXPECT_FALSE(got_.allocation);
}

TEST_F(NbdContexts, ListsAllWithoutAQueryAndNamespacesWithOne) {
  const Bytes allocation = context(k_list, 0, k_allocation);
  const Bytes depth = context(k_list, 0, k_depth);
  const Bytes ack = reply(k_list, ReplyType::ack);
  const auto list = [&](const std::vector<std::string_view>& queries, std::string_view name = "disk") {
    return talk_structured(option(k_list, context_data(name, queries)));
  };
  EXPECT_EQ(list({}), allocation + depth + ack);
  EXPECT_EQ(list({}, ""), allocation + depth + ack);
  EXPECT_EQ(list({"base:"}), allocation + ack);
  EXPECT_EQ(list({"qemu:"}), depth + ack);
  EXPECT_EQ(list({"qemu:", "base:"}), allocation + depth + ack);
  EXPECT_EQ(list({k_allocation}), allocation + ack);
  EXPECT_EQ(list({k_depth, k_depth}), depth + ack);
  for (const char* other : {"base", "bas", "base:alloc", "base:allocation2", "BASE:allocation",
                            "qemu:dirty-bitmap:", "x-some:thing", ":", "", "allocation"}) {
    EXPECT_EQ(list({other}), ack) << other;
  }
}

TEST_F(NbdContexts, ListSelectsNothing) {
  EXPECT_EQ(selected_by(option(k_list, context_data("disk", {k_allocation}))), "");
  EXPECT_EQ(selected_by(option(k_set, context_data("disk", {k_depth})) +
                        option(k_list, context_data("disk", {k_allocation}))),
            " depth");
}

TEST_F(NbdContexts, SetTakesExactNames) {
  const auto set = [&](const std::vector<std::string_view>& queries) {
    return talk_structured(option(k_set, context_data("disk", queries)));
  };
  const Bytes ack = reply(k_set, ReplyType::ack);
  EXPECT_EQ(set({k_allocation}), context(k_set, 1, k_allocation) + ack);
  EXPECT_EQ(set({k_depth}), context(k_set, 2, k_depth) + ack);
  EXPECT_EQ(set({k_depth, "x-other:y", k_allocation}),
            context(k_set, 1, k_allocation) + context(k_set, 2, k_depth) + ack);
  EXPECT_EQ(set({k_allocation, k_allocation}), context(k_set, 1, k_allocation) + ack) << "each once";
  EXPECT_EQ(set({}), ack);
  EXPECT_EQ(set({"base:", "qemu:"}), ack) << "namespaces select nothing";
  EXPECT_EQ(set({"", "base", "base:allocation-depth", "qemu:allocation"}), ack);
}

TEST_F(NbdContexts, WhatWasSetIsNegotiated) {
  EXPECT_EQ(selected_by(option(k_set, context_data("disk", {k_allocation}))), "allocation");
  EXPECT_EQ(selected_by(option(k_set, context_data("disk", {k_depth}))), " depth");
  EXPECT_EQ(selected_by(option(k_set, context_data("disk", {k_depth, k_allocation}))), "allocation depth");
  EXPECT_EQ(selected_by({}), "");
  (void)talk_structured(option(k_set, context_data("disk", {k_allocation})) + option(1, text("disk")));
  EXPECT_TRUE(got_.allocation) << "EXPORT_NAME takes them too";
}

TEST_F(NbdContexts, SetReplacesWhatWasSet) {
  const Bytes first = option(k_set, context_data("disk", {k_allocation}));
  EXPECT_EQ(selected_by(first + option(k_set, context_data("disk", {k_depth}))), " depth");
  EXPECT_EQ(selected_by(first + option(k_set, context_data("disk", {}))), "");
  EXPECT_EQ(selected_by(first + option(k_set, context_data("o", {k_allocation}))), "");
}

TEST_F(NbdContexts, SetThatFailsReplacesTooWhateverTheReason) {
  const Bytes first = option(k_set, context_data("disk", {k_allocation}));
  EXPECT_EQ(selected_by(first + option(k_set, context_data("no", {k_allocation}))), "");
  EXPECT_EQ(selected_by(first + option(k_set, text("x"))), "");
  EXPECT_EQ(selected_by(first + option(k_set, Bytes(70'000))), "");
}

TEST_F(NbdContexts, ContextsBelongToTheExportTheyWereSetFor) {
  const Bytes set = option(k_set, context_data("disk", {k_allocation, k_depth}));
  EXPECT_EQ(selected_by(set, "o"), "") << "GO names another";
  EXPECT_EQ(selected_by(set, ""), "allocation depth") << "the default is the same export";
  (void)talk_structured(set + option(1, text("o")));
  EXPECT_EQ(state_, k_transmission);
  EXPECT_FALSE(got_.allocation || got_.depth) << "EXPORT_NAME names another";
}

TEST_F(NbdContexts, InfoAndAFailedGoInBetweenDoNotMatter) {
  const Bytes set = option(k_set, context_data("disk", {k_allocation}));
  EXPECT_EQ(selected_by(set + option(6, info_data("disk"))), "allocation");
  EXPECT_EQ(selected_by(set + option(6, info_data("o"))), "allocation");
  EXPECT_EQ(selected_by(set + option(7, info_data("no")) + option(3)), "allocation");
}

TEST_F(NbdContexts, WrongData) {
  constexpr auto k_lengths = "the lengths in the option's data do not fit together";
  const Bytes good = context_data("disk", {k_allocation});
  for (const std::uint32_t number : {k_list, k_set}) {
    const auto answer = [&](const Bytes& data) { return talk_structured(option(number, data)); };
    const Bytes wrong = error(number, ReplyType::error_invalid, k_lengths);
    for (std::size_t length = 0; length < good.size(); ++length) {
      EXPECT_EQ(answer(Bytes(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(length))), wrong)
          << length;
    }
    EXPECT_EQ(answer(good + text("x")), wrong);
    Bytes many = good;
    many[8] = std::byte{0xff};  // 0xff000001 queries
    EXPECT_EQ(answer(many), wrong);
    Bytes long_query = good;
    long_query[12] = std::byte{0xff};
    EXPECT_EQ(answer(long_query), wrong);
    Bytes long_name = good;
    long_name[0] = std::byte{0xff};
    EXPECT_EQ(answer(long_name), wrong);
    EXPECT_EQ(answer(context_data("no", {})),
              error(number, ReplyType::error_unknown, "there is no export 'no'"));
    EXPECT_EQ(answer(context_data(std::string(4097, 'x'), {})),
              error(number, ReplyType::error_too_big, "an export's name has at most 4096 bytes"));
    EXPECT_EQ(answer(context_data(std::string_view("di\0k", 4), {})),
              error(number, ReplyType::error_invalid, "an export's name has no zero bytes"));
  }
  EXPECT_EQ(state_, k_haggling);
}

TEST_F(NbdContexts, AsManyQueriesAsFitAreLookedAt) {
  std::vector<std::string_view> queries(16'000, "");
  queries.back() = k_allocation;
  EXPECT_EQ(talk_structured(option(k_set, context_data("disk", queries))),
            context(k_set, 1, k_allocation) + reply(k_set, ReplyType::ack));
  const std::string name(60'000, 'q');
  EXPECT_EQ(
      talk_structured(option(k_set, context_data("disk", {name, std::string_view("base:allocation\0", 16)}))),
      reply(k_set, ReplyType::ack))
      << "names that are none select nothing";
}

TEST_F(NbdContexts, StarttlsForgetsThemAndStructuredReplies) {
  // A server that asks for TLS never grants them before; one that is asked to is the same machine.
  Handshake handshake(exports_, {}, Handshake::Tls::required);
  (void)handshake.feed(flags(3) + option(5));
  handshake.secured();
  (void)handshake.feed(option(8) + option(k_set, context_data("disk", {k_allocation})));
  (void)handshake.feed(option(5) + option(7, info_data("disk")));
  EXPECT_TRUE(handshake.negotiated().allocation) << "a second STARTTLS is refused and changes nothing";

  Handshake before(exports_, {}, Handshake::Tls::required);
  (void)before.feed(flags(3) + option(8) + option(k_set, context_data("disk", {k_allocation})) + option(5));
  before.secured();
  (void)before.feed(option(7, info_data("disk")));
  EXPECT_EQ(before.state(), k_transmission);
  EXPECT_FALSE(before.negotiated().structured_replies);
  EXPECT_FALSE(before.negotiated().allocation);
}

}  // namespace
}  // namespace oxbow::nbd
