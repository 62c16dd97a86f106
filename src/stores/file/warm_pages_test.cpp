// SPDX-License-Identifier: Apache-2.0
#include "stores/file/warm_pages.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "support/effort.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_page = 4096;
constexpr std::uint64_t k_mib = 1U << 20;

TEST(WarmPages, AgreeWithAnArrayOfFlags) {
  const std::uint64_t seed = test::seed(4711);
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  const std::uint64_t size = 3 * k_mib + 123;
  WarmPages pages;
  ASSERT_EQ(pages.init(size), 0);
  std::vector<bool> model((size + k_page - 1) / k_page);
  for (int step = 0; step < 3000; ++step) {
    const std::uint64_t length = 1 + random() % (step % 7 == 0 ? k_mib : 3 * k_page);
    const Range range{random() % (size - length + 1), length};
    const std::uint64_t first = range.offset / k_page;
    const std::uint64_t end = (range.end() - 1) / k_page + 1;
    const int what = static_cast<int>(random() % 3);
    bool all = true;
    for (std::uint64_t page = first; page < end; ++page) {
      all = all && model[page];
      if (what == 0) model[page] = true;
      if (what == 1) model[page] = false;
    }
    if (what == 0) pages.note(range);
    if (what == 1) pages.forget(range);
    if (what == 2) {
      ASSERT_EQ(pages.warm(range), all) << "step " << step << ": " << length << " at " << range.offset;
    }
  }
}

TEST(WarmPages, AreTestedNowAndThen) {
  WarmPages pages;
  ASSERT_EQ(pages.init(k_mib), 0);
  int tests = 0;
  for (int i = 0; i < 640; ++i) tests += pages.due(k_page) ? 1 : 0;
  EXPECT_EQ(tests, 10);
  EXPECT_TRUE(pages.due(WarmPages::k_bytes_per_test));
  EXPECT_TRUE(pages.due(k_mib));
}

TEST(WarmPages, ForgetTheNeighbourhoodUpToTheEnd) {
  constexpr std::uint64_t k_around = WarmPages::k_neighbourhood_bytes;
  const std::uint64_t size = 2 * k_around + 5000;
  WarmPages pages;
  ASSERT_EQ(pages.init(size), 0);
  pages.note({0, size});
  pages.forget_around({k_around + 7 * k_page, k_page});
  EXPECT_TRUE(pages.warm({0, k_around}));
  EXPECT_FALSE(pages.warm({k_around, 1}));
  EXPECT_FALSE(pages.warm({2 * k_around - 1, 1}));
  EXPECT_TRUE(pages.warm({2 * k_around, 5000}));
  pages.forget_around({2 * k_around + 4999, 1});
  EXPECT_FALSE(pages.warm({2 * k_around, 1}));
  EXPECT_TRUE(pages.warm({0, k_around}));
}

TEST(WarmPages, CountTheRegionsThatPageTablesMayCover) {
  WarmPages pages;
  ASSERT_EQ(pages.init(64 * k_mib), 0);
  EXPECT_EQ(pages.regions(), 0U);
  pages.note({3 * k_mib, k_page});
  pages.note({2 * k_mib, k_page});
  pages.note({2 * k_mib, k_page});
  EXPECT_EQ(pages.regions(), 1U);
  pages.note({4 * k_mib - 1, 2});
  EXPECT_EQ(pages.regions(), 2U);
  pages.note({64 * k_mib - 1, 1});
  EXPECT_EQ(pages.regions(), 3U);
  pages.forget_all();
  EXPECT_EQ(pages.regions(), 0U);
  EXPECT_FALSE(pages.warm({3 * k_mib, 1}));
}

}  // namespace
}  // namespace oxbow
