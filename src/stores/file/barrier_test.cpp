// SPDX-License-Identifier: Apache-2.0
#include "stores/file/barrier.h"

#include <gtest/gtest.h>

#include <thread>

namespace oxbow {
namespace {

IoStatus succeed() { return {}; }

TEST(Barrier, OnceFailedEverySyncFails) {
  Barrier barrier;
  EXPECT_TRUE(barrier.sync(succeed).ok());
  EXPECT_EQ(barrier.sync([] { return IoStatus::error(ENXIO); }), IoStatus::error(ENXIO));
  EXPECT_EQ(barrier.sync(succeed), IoStatus::error(ENXIO));
}

TEST(Barrier, LackOfRoomForADurableWriteIsNoFailure) {
  Barrier barrier;
  EXPECT_EQ(barrier.durable_write([] { return IoStatus::error(ENOSPC); }), IoStatus::error(ENOSPC));
  EXPECT_TRUE(barrier.sync(succeed).ok());
}

TEST(Barrier, ASyncHearsOfTheDurableWriteBesideIt) {
  Barrier barrier;
  std::atomic<int> stage{0};
  // The write has taken the error from the kernel, but its thread has not got to say so yet.
  std::thread writer([&] {
    const IoStatus status = barrier.durable_write([&] {
      stage = 1;
      while (stage != 2) std::this_thread::yield();
      return IoStatus::error(EIO);
    });
    EXPECT_EQ(status, IoStatus::error(EIO));
  });
  while (stage != 1) std::this_thread::yield();
  const IoStatus synced = barrier.sync([&] {
    stage = 2;
    return IoStatus{};
  });
  EXPECT_EQ(synced, IoStatus::error(EIO));
  writer.join();
}

}  // namespace
}  // namespace oxbow
