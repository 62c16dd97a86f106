// SPDX-License-Identifier: Apache-2.0
#include "targets/error/error_target.h"

#include <gtest/gtest.h>

namespace oxbow {
namespace {

TEST(ErrorTarget, CannotBeRead) {
  const ErrorTarget target(8192, true);
  Extents out;
  const Step step = target.locate({100, 8000}, out);
  EXPECT_EQ(step.answer, Answer::ready);
  EXPECT_EQ(step.length, 8000U);
  ASSERT_EQ(out.size(), 1U);
  EXPECT_EQ(out[0].kind, Kind::error);
  EXPECT_EQ(out[0].length, 8000U);
  EXPECT_EQ(out[0].at, static_cast<std::uint64_t>(EIO));
}

TEST(ErrorTarget, CannotBeChanged) {
  ErrorTarget target(8192, true);
  for (const Operation operation : {Operation::write, Operation::zero, Operation::discard}) {
    Plan plan;
    const Step step = target.plan({512, 1024}, {operation, false, false}, plan);
    EXPECT_EQ(step.answer, Answer::failed);
    EXPECT_EQ(step.length, 0U);
    EXPECT_EQ(step.key, static_cast<std::uint64_t>(EIO));
    EXPECT_EQ(plan.owner, nullptr);
    EXPECT_FALSE(plan.has_move);
  }
}

TEST(ErrorTarget, TellsItsSizeModeAndTable) {
  EXPECT_EQ(ErrorTarget(8192, true).size(), 8192U);
  EXPECT_TRUE(ErrorTarget(8192, true).writable());
  EXPECT_FALSE(ErrorTarget(8192, false).writable());
  EXPECT_EQ(ErrorTarget(8192, true).status().name, "error");
  EXPECT_EQ(ErrorTarget(8192, true).status().table, "");
}

}  // namespace
}  // namespace oxbow
