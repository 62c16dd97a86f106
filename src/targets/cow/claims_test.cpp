// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/claims.h"

#include <gtest/gtest.h>

#include "os/queue.h"

namespace oxbow {
namespace {

// Says whether it was posted.
struct Waiter : Io {
  explicit Waiter(Queue& owner) noexcept
      : Io(owner, [](Io& self) noexcept { static_cast<Waiter&>(self).woken = true; }) {}
  bool woken = false;
};

TEST(Claims, StopAtTheFirstThatIsTaken) {
  Claims claims;
  EXPECT_EQ(claims.take(100, 1), 1U);
  EXPECT_EQ(claims.take(30, 200), 70U);
  EXPECT_EQ(claims.take(100, 5), 0U);
  EXPECT_EQ(claims.take(101, 1), 1U) << "what lies behind a conflict must not stay claimed";
  claims.drop(30, 70);
  EXPECT_EQ(claims.take(64, 64), 36U);
}

TEST(Claims, FoldModuloTheirNumber) {
  Claims claims;
  EXPECT_EQ(claims.take(Claims::k_slots - 2, 4), 4U);
  EXPECT_EQ(claims.take(1, 1), 0U);
  EXPECT_EQ(claims.take((2 * Claims::k_slots) + 2, 1), 1U);
  claims.drop(Claims::k_slots - 2, 4);
  EXPECT_EQ(claims.take(0, 2), 2U);
}

TEST(Claims, CountWhatIsUnclaimed) {
  Claims claims;
  EXPECT_EQ(claims.unclaimed(60, 300), 300U);
  EXPECT_EQ(claims.take(130, 1), 1U);
  EXPECT_EQ(claims.unclaimed(60, 300), 70U);
  EXPECT_EQ(claims.unclaimed(130, 5), 0U);
  EXPECT_EQ(claims.unclaimed(131, 5), 5U);
}

TEST(Claims, WakeExactlyThoseThatCanGoOn) {
  Queue queue;
  Claims claims;
  ASSERT_EQ(claims.take(7, 2), 2U);
  Waiter seven(queue);
  Waiter eight(queue);
  Waiter nine(queue);
  EXPECT_TRUE(claims.wait(seven, 7).is_pending());
  EXPECT_TRUE(claims.wait(eight, 8).is_pending());
  EXPECT_TRUE(claims.wait(nine, 9).is_done());
  claims.drop(8, 1);
  queue.poll();
  EXPECT_TRUE(eight.woken);
  EXPECT_FALSE(seven.woken);
  claims.drop(7, 1);
  queue.poll();
  EXPECT_TRUE(seven.woken);
}

}  // namespace
}  // namespace oxbow
