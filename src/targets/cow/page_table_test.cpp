// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/page_table.h"

#include <gtest/gtest.h>

namespace oxbow {
namespace {

TEST(PageTable, FollowsAPageThroughItsFlushes) {
  PageTable pages(200);
  EXPECT_FALSE(pages.loaded(150));
  pages.set_loaded(150, 1);
  EXPECT_TRUE(pages.loaded(150));
  EXPECT_EQ(pages.next_slot(150), 1U);
  EXPECT_TRUE(pages.settled(150));
  pages.set_dirty(150);
  EXPECT_FALSE(pages.settled(150));
  std::vector<std::uint32_t> taken;
  std::uint64_t from = 0;
  EXPECT_FALSE(pages.take_dirty(10, true, from, taken));
  EXPECT_EQ(taken, std::vector<std::uint32_t>{150});
  EXPECT_FALSE(pages.is_dirty(150));
  EXPECT_FALSE(pages.settled(150)) << "in flight";
  pages.set_dirty(150);
  pages.written(150);
  EXPECT_EQ(pages.next_slot(150), 0U);
  EXPECT_FALSE(pages.settled(150)) << "it changed while it was written";
}

TEST(PageTable, TakesNoMoreThanTheLimit) {
  PageTable pages(200);
  for (const std::uint64_t page : {3U, 64U, 199U}) pages.set_dirty(page);
  std::vector<std::uint32_t> taken;
  std::uint64_t from = 0;
  EXPECT_TRUE(pages.take_dirty(2, true, from, taken));
  EXPECT_EQ(taken, (std::vector<std::uint32_t>{3, 64}));
  EXPECT_EQ(from, 199U);
  taken.clear();
  pages.set_dirty(198);
  EXPECT_FALSE(pages.take_dirty(2, true, from, taken));
  EXPECT_EQ(taken, (std::vector<std::uint32_t>{199}));
  EXPECT_TRUE(pages.is_dirty(198)) << "behind";
}

TEST(PageTable, KeepsDamageInItsPlace) {
  PageTable pages(3);
  pages.set_damaged(1);
  EXPECT_TRUE(pages.loaded(1));
  EXPECT_TRUE(pages.damaged(1));
  EXPECT_FALSE(pages.damaged(0));
  EXPECT_FALSE(pages.loaded(2));
}

}  // namespace
}  // namespace oxbow
