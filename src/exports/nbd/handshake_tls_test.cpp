// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "exports/nbd/test_haggling.h"

namespace oxbow::nbd {
namespace {

constexpr auto k_required = "this server is used with TLS only";

// The machine of a server that has credentials.
class NbdHandshakeTls : public ::testing::Test, protected Haggling {
 protected:
  NbdHandshakeTls() { tls_ = Handshake::Tls::required; }

  // What is answered to `in` after TLS has been started; `before` it came in the clear.
  Bytes talk_secured(const Bytes& in, const Bytes& before = {}) {
    Handshake handshake(exports_, {}, tls_);
    const Bytes clear = flags(3) + before + option(5);
    EXPECT_EQ(handshake.feed(clear), clear.size());
    EXPECT_EQ(handshake.state(), k_starting_tls);
    handshake.output().clear();
    handshake.secured();
    EXPECT_EQ(handshake.state(), k_haggling);
    consumed_ = handshake.feed(in);
    finish(handshake);
    return handshake.output();
  }
};

TEST_F(NbdHandshakeTls, WithoutCredentialsStarttlsIsAgainstThePolicy) {
  tls_ = Handshake::Tls::none;
  EXPECT_EQ(talk(option(5)), error(5, ReplyType::error_policy, "this server does not use TLS"));
  EXPECT_EQ(state_, k_haggling);
  (void)talk(option(5) + option(7, info_data("disk")));
  EXPECT_EQ(state_, k_transmission);
  EXPECT_FALSE(got_.encrypted);
}

TEST_F(NbdHandshakeTls, EveryOtherOptionIsRefusedInTheClear) {
  Bytes in;
  Bytes expected;
  for (const std::uint32_t number : {3U, 4U, 6U, 7U, 8U, 9U, 10U, 11U, 99U}) {
    in = in + option(number, info_data("disk"));
    expected = expected + error(number, ReplyType::error_tls_required, k_required);
  }
  EXPECT_EQ(talk(in), expected);
  EXPECT_EQ(state_, k_haggling);
  EXPECT_EQ(talk(option(7, Bytes(70'000))), error(7, ReplyType::error_tls_required, k_required));
  EXPECT_EQ(talk(option(2)), reply(2, ReplyType::ack));
  EXPECT_EQ(state_, k_closed);
}

TEST_F(NbdHandshakeTls, ExportNameInTheClearEndsIt) {
  EXPECT_EQ(talk(option(1, text("disk"))), Bytes());
  EXPECT_EQ(state_, k_closed);
  EXPECT_EQ(why_, k_required);
  EXPECT_EQ(got_.served, nullptr);
}

TEST_F(NbdHandshakeTls, AClientWithoutFixedNewstyleIsLeft) {
  EXPECT_EQ(talk(flags(2) + option(5), true), Bytes());
  EXPECT_EQ(state_, k_closed);
  EXPECT_EQ(why_, "a client without the fixed newstyle handshake cannot use TLS");
}

TEST_F(NbdHandshakeTls, StarttlsIsAcknowledgedAndNothingBehindItIsTaken) {
  const Bytes start = option(5);
  EXPECT_EQ(talk(start + option(7, info_data("disk"))), reply(5, ReplyType::ack));
  EXPECT_EQ(state_, k_starting_tls);
  EXPECT_EQ(consumed_, start.size());
  EXPECT_EQ(got_.served, nullptr);
}

TEST_F(NbdHandshakeTls, NothingIsTakenBeforeItIsSecured) {
  Handshake handshake(exports_, {}, tls_);
  (void)handshake.feed(flags(3) + option(5));
  EXPECT_EQ(handshake.feed(option(7, info_data("disk"))), 0U);
  EXPECT_EQ(handshake.state(), k_starting_tls);
}

TEST_F(NbdHandshakeTls, WithDataStarttlsIsInvalid) {
  EXPECT_EQ(talk(option(5, text("x"))),
            error(5, ReplyType::error_invalid, "the option STARTTLS has no data"));
  EXPECT_EQ(state_, k_haggling);
}

TEST_F(NbdHandshakeTls, OnceSecuredEverythingIsServed) {
  EXPECT_EQ(talk_secured(option(7, info_data("disk"))),
            reply(7, ReplyType::info, export_info(1 << 20, k_writable_flags)) + reply(7, ReplyType::ack));
  EXPECT_EQ(state_, k_transmission);
  EXPECT_EQ(got_.served->name, "disk");
  EXPECT_TRUE(got_.encrypted);
  (void)talk_secured(option(1, text("disk")));
  EXPECT_EQ(state_, k_transmission);
}

TEST_F(NbdHandshakeTls, ASecondStarttlsIsInvalid) {
  EXPECT_EQ(talk_secured(option(5)), error(5, ReplyType::error_invalid, "TLS is in use already"));
  EXPECT_EQ(state_, k_haggling);
}

TEST_F(NbdHandshakeTls, HalfAnOptionInTheClearIsNotCompletedEncrypted) {
  const Bytes go = option(7, info_data("disk"));
  Handshake handshake(exports_, {}, tls_);
  const Bytes clear = flags(3) + option(5) + Bytes(go.begin(), go.begin() + 10);
  EXPECT_EQ(handshake.feed(clear), clear.size() - 10);
  handshake.secured();
  EXPECT_EQ(handshake.feed(std::span(go).subspan(10)), 16U) << "taken for the head of an option";
  EXPECT_EQ(handshake.state(), k_closed);
  EXPECT_EQ(handshake.why_closed(), "an option without the protocol's magic number");
}

TEST_F(NbdHandshakeTls, OptionsAreCountedAcrossStarttls) {
  Bytes before;
  for (int i = 0; i < 126; ++i) before = before + option(3);
  (void)talk_secured(option(3), before);
  EXPECT_EQ(state_, k_haggling);
  (void)talk_secured(option(3) + option(3), before);
  EXPECT_EQ(state_, k_closed);
  EXPECT_EQ(why_, "more than 128 options");
}

TEST_F(NbdHandshakeTls, ARefusedClientIsToldBeforeTls) {
  Handshake handshake(exports_, "enough is enough", tls_);
  handshake.output().clear();
  (void)handshake.feed(flags(3) + option(5));
  EXPECT_EQ(handshake.output(), error(5, ReplyType::error_policy, "enough is enough"));
  EXPECT_EQ(handshake.state(), k_haggling);
}

}  // namespace
}  // namespace oxbow::nbd
