// SPDX-License-Identifier: Apache-2.0
#include "cli/progress.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "os/fd.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_mib = 1 << 20;
constexpr std::int64_t k_ms = 1'000'000;

// A terminal whose screen is what the progress line wrote, and a clock that stands still by itself.
class ProgressBarTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int screen = -1;
    int terminal = -1;
    ASSERT_EQ(::openpty(&screen, &terminal, nullptr, nullptr, nullptr), 0);
    screen_.reset(screen);
    terminal_.reset(terminal);
    ASSERT_EQ(::fcntl(screen, F_SETFL, O_NONBLOCK), 0);
    set_columns(80);
  }
  void set_columns(unsigned short columns) {
    const winsize size{24, columns, 0, 0};
    ASSERT_EQ(::ioctl(terminal_.get(), TIOCSWINSZ, &size), 0);
  }
  std::string written() {
    std::string text(4096, '\0');
    const ssize_t length = ::read(screen_.get(), text.data(), text.size());
    text.resize(length < 0 ? 0 : static_cast<std::size_t>(length));
    return text;
  }
  std::function<std::int64_t()> clock() {
    return [this] { return now_; };
  }

  UniqueFd screen_;
  UniqueFd terminal_;
  std::int64_t now_ = 1;
};

TEST_F(ProgressBarTest, TellsShareRateAndTimeLeft) {
  ProgressBar bar("packing", terminal_.get(), clock());
  bar.show(0, 1000 * k_mib);
  now_ += 2000 * k_ms;
  bar.show(100 * k_mib, 1000 * k_mib);
  EXPECT_EQ(written(), "\rpacking   10%  100M of 1000M  50M/s  18 s left");
}

TEST_F(ProgressBarTest, IsRewrittenInPlaceAndTakenAway) {
  {
    ProgressBar bar("packing", terminal_.get(), clock());
    const auto feed = bar.feed();
    feed(0, 200 * k_mib);
    now_ += 1000 * k_ms;
    feed(10 * k_mib, 200 * k_mib);
    EXPECT_EQ(written(), "\rpacking    5%  10M of 200M  10M/s  19 s left");
    now_ += 1000 * k_ms;
    feed(200 * k_mib, 200 * k_mib);
    EXPECT_EQ(written(), "\rpacking  100%  200M of 200M  100M/s" + std::string(9, ' '));
    bar.clear();
    EXPECT_EQ(written(), "\r" + std::string(35, ' ') + "\r");
    now_ += 1000 * k_ms;
    feed(200 * k_mib, 200 * k_mib);
    EXPECT_NE(written(), "");
  }
  EXPECT_EQ(written(), "\r" + std::string(34, ' ') + "\r") << "the end takes it away too";
}

TEST_F(ProgressBarTest, ShowsNothingOfWhatIsOverInAMoment) {
  {
    ProgressBar bar("packing", terminal_.get(), clock());
    bar.show(0, k_mib);
    now_ += 499 * k_ms;
    bar.show(k_mib, k_mib);
  }
  EXPECT_EQ(written(), "");
}

TEST_F(ProgressBarTest, IsWrittenTenTimesASecondAtMost) {
  ProgressBar bar("packing", terminal_.get(), clock());
  int lines = 0;
  for (std::uint64_t i = 0; i < 2000; ++i) {
    bar.show(i * k_mib, 3000 * k_mib);
    if (!written().empty()) ++lines;
    now_ += k_ms;
  }
  EXPECT_GE(lines, 14);
  EXPECT_LE(lines, 16);
}

TEST_F(ProgressBarTest, KnowsNoTotal) {
  ProgressBar bar("checking", terminal_.get(), clock());
  bar.show(0, 0);
  now_ += 2000 * k_ms;
  bar.show(64 * k_mib, 0);
  EXPECT_EQ(written(), "\rchecking  64M  32M/s");
}

TEST_F(ProgressBarTest, RateCountsWhatWasDoneHere) {
  ProgressBar bar("merging", terminal_.get(), clock());
  bar.show(500 * k_mib, 1000 * k_mib);
  now_ += 1000 * k_ms;
  bar.show(510 * k_mib, 1000 * k_mib);
  EXPECT_EQ(written(), "\rmerging   51%  510M of 1000M  10M/s  49 s left");
}

TEST_F(ProgressBarTest, SaysLongTimesInLargeUnits) {
  ProgressBar bar("merging", terminal_.get(), clock());
  bar.show(0, 0);
  for (const auto& [total, left] :
       {std::pair(11 + 60 * 5 + 7, "5 min 07 s left"), std::pair(21 + 3600 * 3 + 60 * 9, "3 h 09 min left"),
        std::pair(31 + 86400 * 40, "40 days left")}) {
    now_ += 10'000 * k_ms;
    const auto done = static_cast<std::uint64_t>(now_ / (1000 * k_ms)) * k_mib;
    bar.show(done, static_cast<std::uint64_t>(total - 1) * k_mib);
    EXPECT_NE(written().find(left), std::string::npos) << left;
  }
}

TEST_F(ProgressBarTest, StaysWithinOneLineOfANarrowTerminal) {
  set_columns(20);
  ProgressBar bar("packing", terminal_.get(), clock());
  bar.show(0, 1000 * k_mib);
  now_ += 2000 * k_ms;
  bar.show(100 * k_mib, 1000 * k_mib);
  EXPECT_EQ(written(), "\rpacking   10%  100M");
}

TEST_F(ProgressBarTest, WritesNothingWhereThereIsNoTerminal) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_NONBLOCK | O_CLOEXEC), 0);
  const UniqueFd reader(ends[0]);
  const UniqueFd writer(ends[1]);
  {
    ProgressBar bar("packing", writer.get(), clock());
    bar.show(0, 10);
    now_ += 5000 * k_ms;
    bar.show(5, 10);
  }
  char byte = 0;
  EXPECT_EQ(::read(reader.get(), &byte, 1), -1);
}

TEST_F(ProgressBarTest, GoesOnWithoutATerminalThatIsGone) {
  ProgressBar bar("packing", terminal_.get(), clock());
  bar.show(0, 10);
  now_ += 5000 * k_ms;
  screen_.reset();
  bar.show(5, 10);
  now_ += 5000 * k_ms;
  bar.show(6, 10);
  bar.clear();
}

}  // namespace
}  // namespace oxbow
