// SPDX-License-Identifier: Apache-2.0
#include "targets/zero/zero_target.h"

#include <gtest/gtest.h>

namespace oxbow {
namespace {

TEST(ZeroTarget, ReadsAsZeros) {
  const ZeroTarget target(8192, true);
  Extents out;
  const Step step = target.locate({100, 8000}, out);
  EXPECT_EQ(step.answer, Answer::ready);
  EXPECT_EQ(step.length, 8000U);
  ASSERT_EQ(out.size(), 1U);
  EXPECT_EQ(out[0].kind, Kind::zero);
  EXPECT_EQ(out[0].length, 8000U);
  EXPECT_EQ(out[0].store, nullptr);
}

TEST(ZeroTarget, ForgetsEveryChange) {
  ZeroTarget target(8192, true);
  for (const Operation operation : {Operation::write, Operation::zero, Operation::discard}) {
    Plan plan;
    const Step step = target.plan({512, 1024}, {operation, true, false}, plan);
    EXPECT_EQ(step.answer, Answer::ready);
    EXPECT_EQ(step.length, 1024U);
    EXPECT_EQ(plan.owner, nullptr);
    EXPECT_FALSE(plan.has_move);
    EXPECT_TRUE(plan.punch.empty());
    EXPECT_TRUE(plan.durable_alone);
  }
  FlushPlan flush;
  target.capture(flush);
  EXPECT_TRUE(flush.rounds[0].syncs.empty());
}

TEST(ZeroTarget, TellsItsSizeModeAndTable) {
  EXPECT_EQ(ZeroTarget(8192, true).size(), 8192U);
  EXPECT_TRUE(ZeroTarget(8192, true).writable());
  EXPECT_FALSE(ZeroTarget(8192, false).writable());
  EXPECT_EQ(ZeroTarget(8192, true).status().name, "zero");
  EXPECT_EQ(ZeroTarget(8192, true).status().table, "");
}

}  // namespace
}  // namespace oxbow
