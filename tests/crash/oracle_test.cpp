// SPDX-License-Identifier: Apache-2.0
#include "crash/oracle.h"

#include <gtest/gtest.h>

#include <cstring>

namespace oxbow::crash {
namespace {

constexpr Range k_sector{0, 512};

class OracleTest : public testing::Test {
 protected:
  WriteId write(Range range, bool durable = false, ChangeKind kind = ChangeKind::content) {
    const WriteId id = oracle_.begin_write(range, kind, durable);
    oracle_.end_write(id, true);
    return id;
  }
  void flush() { oracle_.end_flush(oracle_.begin_flush()); }
  // The sector at 0 as it is after these writes, oldest first; 0 for zeros.
  static sim::SectorBytes made_of(std::initializer_list<std::pair<WriteId, Range>> writes) {
    sim::SectorBytes bytes{};
    for (const auto& [id, range] : writes) {
      const auto part = std::span(bytes).subspan(range.offset, range.length);
      if (id == 0) {
        std::ranges::fill(part, std::byte{0});
      } else {
        fill_content(id, range.offset, part);
      }
    }
    return bytes;
  }
  [[nodiscard]] bool may_crash_to(const sim::SectorBytes& bytes) const {
    return !oracle_.check_after_crash(Oracle::Crash::power_loss, 0, bytes).has_value();
  }
  [[nodiscard]] bool may_crash_to(WriteId id) const { return may_crash_to(made_of({{id, k_sector}})); }
  [[nodiscard]] bool may_read(Moment since, WriteId id) {
    return !oracle_.end_read(since, 0, made_of({{id, k_sector}})).has_value();
  }

  Oracle oracle_;
};

TEST_F(OracleTest, TellsTheWriteAndThePlaceFromContent) {
  std::array<std::byte, 16> bytes{};
  fill_content(123456, 0x7654321098, bytes);
  std::uint64_t word = 0;
  std::memcpy(&word, bytes.data() + 8, 8);
  EXPECT_EQ(tell_tale(word).id, 123456U);
  EXPECT_EQ(tell_tale(word).offset, 0x76543210A0U);
}

TEST_F(OracleTest, AllowsOldAndNewWithoutAFlush) {
  const WriteId first = write(k_sector);
  const WriteId second = write(k_sector);
  EXPECT_TRUE(may_crash_to(WriteId{0}));
  EXPECT_TRUE(may_crash_to(first));
  EXPECT_TRUE(may_crash_to(second));
  EXPECT_FALSE(may_crash_to(second + 1));
}

TEST_F(OracleTest, WantsWhatAFlushCoversOrNewer) {
  const WriteId first = write(k_sector);
  const WriteId second = write(k_sector);
  flush();
  const WriteId third = write(k_sector);
  EXPECT_FALSE(may_crash_to(WriteId{0}));
  EXPECT_FALSE(may_crash_to(first));
  EXPECT_TRUE(may_crash_to(second));
  EXPECT_TRUE(may_crash_to(third));
}

TEST_F(OracleTest, AFlushCoversOnlyWhatEndedBeforeItWasSubmitted) {
  const WriteId early = oracle_.begin_write(k_sector, ChangeKind::content, false);
  const Moment since = oracle_.begin_flush();
  oracle_.end_write(early, true);
  oracle_.end_flush(since);
  EXPECT_TRUE(may_crash_to(WriteId{0}));
  flush();
  EXPECT_FALSE(may_crash_to(WriteId{0}));
  EXPECT_TRUE(may_crash_to(early));
}

TEST_F(OracleTest, ADurableWriteSpeaksForItselfAlone) {
  const WriteId other = write({512, 512});
  const WriteId durable = write(k_sector, true);
  EXPECT_FALSE(may_crash_to(WriteId{0}));
  EXPECT_TRUE(may_crash_to(durable));
  sim::SectorBytes bytes{};
  EXPECT_FALSE(oracle_.check_after_crash(Oracle::Crash::power_loss, 512, bytes))
      << "the other one may be lost";
  fill_content(other, 512, bytes);
  EXPECT_FALSE(oracle_.check_after_crash(Oracle::Crash::power_loss, 512, bytes));
}

TEST_F(OracleTest, OverlappingWritesMayComeInEitherOrder) {
  const WriteId first = oracle_.begin_write(k_sector, ChangeKind::content, false);
  const WriteId second = oracle_.begin_write(k_sector, ChangeKind::content, false);
  oracle_.end_write(second, true);
  oracle_.end_write(first, true);
  flush();
  EXPECT_TRUE(may_crash_to(first));
  EXPECT_TRUE(may_crash_to(second));
  EXPECT_FALSE(may_crash_to(WriteId{0}));
}

TEST_F(OracleTest, AFailedWriteMayShowUntilItIsReplaced) {
  const WriteId sound = write(k_sector);
  flush();
  const WriteId failed = oracle_.begin_write(k_sector, ChangeKind::content, false);
  oracle_.end_write(failed, false);
  flush();
  EXPECT_TRUE(may_crash_to(sound));
  EXPECT_TRUE(may_crash_to(failed));
  const WriteId last = write(k_sector);
  flush();
  EXPECT_FALSE(may_crash_to(failed));
  EXPECT_TRUE(may_crash_to(last));
}

TEST_F(OracleTest, ReadsSeeWhatHadCompleted) {
  const WriteId first = write(k_sector);
  const Moment since = oracle_.begin_read();
  const WriteId second = write(k_sector);
  EXPECT_TRUE(may_read(since, first));
  EXPECT_TRUE(may_read(since, second));
  EXPECT_FALSE(may_read(oracle_.begin_read(), first));
  EXPECT_FALSE(may_read(oracle_.begin_read(), 0));
}

TEST_F(OracleTest, WhatAReadReturnedComesBeforeWhatIsSubmittedThen) {
  (void)write(k_sector);
  const WriteId zeros = oracle_.begin_write(k_sector, ChangeKind::zeros, false);
  EXPECT_TRUE(may_read(oracle_.begin_read(), 0)) << "they are in flight and may have taken effect";
  const WriteId last = write(k_sector);
  EXPECT_TRUE(may_read(oracle_.begin_read(), last));
  EXPECT_FALSE(may_read(oracle_.begin_read(), 0)) << "they cannot come back";
  oracle_.end_write(zeros, true);
}

TEST_F(OracleTest, PartsOfASectorAreOfOneMoment) {
  constexpr Range k_left{0, 256};
  constexpr Range k_right{256, 256};
  const WriteId left = write(k_left);
  const WriteId right = write(k_right);
  const WriteId whole = write(k_sector);
  EXPECT_TRUE(may_crash_to(made_of({{left, k_left}})));
  EXPECT_TRUE(may_crash_to(made_of({{left, k_left}, {right, k_right}})));
  EXPECT_FALSE(may_crash_to(made_of({{right, k_right}}))) << "the left half came before it";
  EXPECT_FALSE(may_crash_to(made_of({{whole, k_right}}))) << "a torn sector";
  EXPECT_FALSE(may_crash_to(made_of({{left, k_left}, {whole, k_right}})));
  EXPECT_TRUE(may_crash_to(whole));
}

TEST_F(OracleTest, AfterAPowerLossOnlyWhatWasFoundIsLeft) {
  const WriteId first = write(k_sector);
  const WriteId second = write(k_sector);
  oracle_.crashed(Oracle::Crash::power_loss);
  oracle_.found(Oracle::Crash::power_loss, 0, made_of({{first, k_sector}}));
  EXPECT_TRUE(may_crash_to(first));
  EXPECT_FALSE(may_crash_to(second));
  EXPECT_FALSE(may_crash_to(WriteId{0}));
}

TEST_F(OracleTest, AfterAKillTheRestMayStillBeLost) {
  const WriteId first = write(k_sector);
  const WriteId second = write(k_sector);
  oracle_.crashed(Oracle::Crash::kill);
  oracle_.found(Oracle::Crash::kill, 0, made_of({{second, k_sector}}));
  EXPECT_TRUE(may_crash_to(first));
  EXPECT_FALSE(may_read(oracle_.begin_read(), first)) << "it was found to be replaced";
  flush();
  EXPECT_FALSE(may_crash_to(first));
  EXPECT_TRUE(may_crash_to(second));
}

// Many writes to one sector, so that old values are forgotten on the way.
TEST_F(OracleTest, ForgetsNothingThatMatters) {
  const WriteId slow = oracle_.begin_write(k_sector, ChangeKind::content, false);
  WriteId last = 0;
  for (int i = 0; i < 50; ++i) {
    last = write(k_sector);
    flush();
  }
  EXPECT_TRUE(may_crash_to(last));
  EXPECT_FALSE(may_crash_to(last - 1));
  EXPECT_TRUE(may_crash_to(slow)) << "it is in flight still";
  oracle_.end_write(slow, true);
  const WriteId newest = write(k_sector);
  flush();
  EXPECT_FALSE(may_crash_to(slow));
  EXPECT_TRUE(may_crash_to(newest));
}

TEST_F(OracleTest, NamesWhatShowsAndWhatIsAllowed) {
  const WriteId first = write(k_sector);
  const WriteId second = write(k_sector);
  flush();
  const auto wrong = oracle_.check_after_crash(Oracle::Crash::power_loss, 0, made_of({{first, k_sector}}));
  ASSERT_TRUE(wrong);
  EXPECT_EQ(*wrong,
            "sector 0 bytes 0..511 (device 0x0) show #1 (write 0x0+0x200, life 0, durable); "
            "allowed: not #1 (write 0x0+0x200, life 0, durable) #2 (write 0x0+0x200, life 0, durable)");
  EXPECT_EQ(second, 2U);
}

}  // namespace
}  // namespace oxbow::crash
