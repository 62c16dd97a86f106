// SPDX-License-Identifier: Apache-2.0
#include "stores/file/barrier.h"

#include <gtest/gtest.h>

namespace oxbow {
namespace {

IoStatus succeed() { return {}; }

TEST(Barrier, OnceFailedEverySyncFails) {
  Barrier barrier;
  EXPECT_TRUE(barrier.sync(succeed).ok());
  EXPECT_EQ(barrier.sync([] { return IoStatus::error(ENXIO); }), IoStatus::error(ENXIO));
  EXPECT_EQ(barrier.sync(succeed), IoStatus::error(ENXIO));
}

TEST(Barrier, AfterAFailedDurableWriteEverySyncFails) {
  Barrier barrier;
  EXPECT_EQ(barrier.durable_write([] { return IoStatus::error(EIO); }), IoStatus::error(EIO));
  EXPECT_EQ(barrier.sync(succeed), IoStatus::error(EIO));
}

TEST(Barrier, LackOfRoomForADurableWriteIsNoFailure) {
  Barrier barrier;
  EXPECT_EQ(barrier.durable_write([] { return IoStatus::error(ENOSPC); }), IoStatus::error(ENOSPC));
  EXPECT_TRUE(barrier.sync(succeed).ok());
}

}  // namespace
}  // namespace oxbow
