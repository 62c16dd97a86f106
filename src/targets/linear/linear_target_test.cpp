// SPDX-License-Identifier: Apache-2.0
#include "targets/linear/linear_target.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "targets/fake_store.h"
#include "targets/file/file_target.h"

namespace oxbow {
namespace {

using testing::ElementsAre;

class LinearTargetTest : public testing::Test {
 protected:
  std::shared_ptr<FakeStore> store_ = std::make_shared<FakeStore>(1 << 20);
  LinearTarget target_{store_, "/a b", {4096, 65536}, true};
  Plan plan_;
};

TEST_F(LinearTargetTest, LocatesInTheStoreAtTheOffset) {
  Extents out;
  const Step step = target_.locate({512, 1000}, out);
  EXPECT_EQ(step.answer, Answer::ready);
  EXPECT_EQ(step.length, 1000U);
  ASSERT_EQ(out.size(), 1U);
  EXPECT_EQ(out[0].kind, Kind::data);
  EXPECT_EQ(out[0].length, 1000U);
  EXPECT_EQ(out[0].layer, 0);
  EXPECT_EQ(out[0].store, store_.get());
  EXPECT_EQ(out[0].at, 4608U);
}

TEST_F(LinearTargetTest, AWriteIsOneMoveThatCanBeDurableByItself) {
  const Step step = target_.plan({100, 5000}, {Operation::write, true, false}, plan_);
  EXPECT_EQ(step.answer, Answer::ready);
  EXPECT_EQ(step.length, 5000U);
  EXPECT_EQ(plan_.owner, &target_);
  ASSERT_TRUE(plan_.has_move);
  EXPECT_EQ(plan_.move.store, store_.get());
  EXPECT_EQ(plan_.move.at, 4196U);
  EXPECT_EQ(plan_.move.head, 0U);
  EXPECT_EQ(plan_.move.tail, 0U);
  EXPECT_EQ(plan_.move.body, 5000U);
  EXPECT_EQ(plan_.move.from, Source::payload);
  EXPECT_TRUE(plan_.durable_alone);
  EXPECT_TRUE(plan_.punch.empty());
  EXPECT_TRUE(plan_.claimed.empty());
}

TEST_F(LinearTargetTest, AZeroIsAMoveOfZerosThatWaitsForAFlush) {
  for (const bool allocate : {false, true}) {
    plan_.reset();
    const Step step = target_.plan({0, 65536}, {Operation::zero, true, allocate}, plan_);
    EXPECT_EQ(step.length, 65536U);
    EXPECT_EQ(plan_.owner, &target_);
    ASSERT_TRUE(plan_.has_move);
    EXPECT_EQ(plan_.move.at, 4096U);
    EXPECT_EQ(plan_.move.body, 65536U);
    EXPECT_EQ(plan_.move.from, Source::zeros);
    EXPECT_EQ(plan_.move.allocate, allocate);
    EXPECT_FALSE(plan_.durable_alone);
  }
}

TEST_F(LinearTargetTest, ADiscardOnlyPunches) {
  const Step step = target_.plan({512, 1024}, {Operation::discard, false, false}, plan_);
  EXPECT_EQ(step.length, 1024U);
  EXPECT_EQ(plan_.owner, &target_);
  EXPECT_FALSE(plan_.has_move);
  EXPECT_EQ(plan_.punch, (Range{4608, 1024}));
  EXPECT_EQ(plan_.punch_store, store_.get());
  EXPECT_FALSE(plan_.durable_alone);
}

TEST_F(LinearTargetTest, AFlushIsTheStoresBarrier) {
  FlushPlan flush;
  target_.capture(flush);
  EXPECT_THAT(flush.rounds[0].syncs, ElementsAre(store_.get()));
  EXPECT_TRUE(flush.rounds[0].writes.empty());
  EXPECT_TRUE(flush.rounds[1].syncs.empty());
  EXPECT_FALSE(flush.more);
}

TEST_F(LinearTargetTest, TellsItsSizeModeAndTable) {
  EXPECT_EQ(target_.size(), 65536U);
  EXPECT_TRUE(target_.writable());
  EXPECT_FALSE(LinearTarget(store_, "/x", {0, 512}, false).writable());
  EXPECT_EQ(target_.status().name, "linear");
  EXPECT_EQ(target_.status().info, "");
  EXPECT_EQ(target_.status().table, "/a\\ b 8");
}

TEST_F(LinearTargetTest, FileDiffersInItsTableOnly) {
  const FileTarget file(store_, "/a b\\c", {4097, 512}, true);
  EXPECT_EQ(file.status().name, "file");
  EXPECT_EQ(file.status().info, "");
  EXPECT_EQ(file.status().table, "/a\\ b\\\\c 4097");
  Extents out;
  EXPECT_EQ(file.locate({1, 2}, out).length, 2U);
  EXPECT_EQ(out[0].at, 4098U);
}

}  // namespace
}  // namespace oxbow
