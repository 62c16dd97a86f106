// SPDX-License-Identifier: Apache-2.0
#include "exports/ublk/continuity.h"

#include <gtest/gtest.h>

namespace oxbow::ublk {
namespace {

using Sources = std::vector<std::string>;

Continuity of(const Sources& before, const Sources& now) { return judge(before, now).continuity; }

TEST(UblkContinuity, ALayerContinuesWithItsLiveState) {
  const Sources before{"0 100 layer u 5 read"};
  EXPECT_EQ(of(before, {"0 100 layer u 6 adopted"}), Continuity::same);
  EXPECT_EQ(of(before, {"0 100 layer u 6 read"}), Continuity::lost);
  EXPECT_EQ(of(before, {"0 100 layer u 7 adopted"}), Continuity::lost);
  EXPECT_EQ(judge(before, {"0 100 layer u 6 read"}).why,
            "its layer was changed in between, or has no live state");
}

TEST(UblkContinuity, ALayerThatWasNotWrittenContinues) {
  EXPECT_EQ(of({"0 100 layer u 5 adopted"}, {"0 100 layer u 5 read"}), Continuity::same);
}

TEST(UblkContinuity, AnotherDeviceIsNoLoss) {
  const Sources before{"0 100 layer u 5 read"};
  EXPECT_EQ(of(before, {"0 100 layer v 6 adopted"}), Continuity::other);
  EXPECT_EQ(of(before, {"0 101 layer u 6 adopted"}), Continuity::other);
  EXPECT_EQ(of(before, {"0 100 raw 1:2"}), Continuity::other);
  EXPECT_EQ(of(before, {"0 100 memory"}), Continuity::other);
  EXPECT_EQ(of(before, {"0 50 layer u 6 adopted", "50 50 zero"}), Continuity::other);
}

TEST(UblkContinuity, MemoryIsLostAndFilesAreNot) {
  EXPECT_EQ(of({"0 100 memory"}, {"0 100 memory"}), Continuity::lost);
  EXPECT_EQ(of({"0 100 raw 1:2"}, {"0 100 raw 1:2"}), Continuity::same);
  EXPECT_EQ(of({"0 100 raw 1:2"}, {"0 100 raw 1:3"}), Continuity::other);
  EXPECT_EQ(of({"0 9 zero", "9 9 raw 1:2"}, {"0 9 zero", "9 9 raw 1:2"}), Continuity::same);
  EXPECT_EQ(of({"0 9 memory", "9 9 raw 1:2"}, {"0 9 memory", "9 9 raw 1:2"}), Continuity::lost);
}

TEST(UblkContinuity, APairContinuesWithItsLiveState) {
  EXPECT_EQ(of({"0 100 pair 1:2 read"}, {"0 100 pair 1:2 adopted"}), Continuity::same);
  EXPECT_EQ(of({"0 100 pair 1:2 read"}, {"0 100 pair 1:2 read"}), Continuity::lost);
}

}  // namespace
}  // namespace oxbow::ublk
