// SPDX-License-Identifier: Apache-2.0
#include "exports/fuse/seek.h"

#include <gtest/gtest.h>

namespace oxbow::fuse {
namespace {

Extent extent(std::uint64_t length, Kind kind) { return {length, kind, 0, nullptr, 0}; }

TEST(Seek, FindsTheFirstOfAKind) {
  Extents extents;
  extents.push_back(extent(4096, Kind::zero));
  extents.push_back(extent(512, Kind::data));
  extents.push_back(extent(1024, Kind::zero));
  Range range{8192, 65536};
  EXPECT_EQ(find(extents, SeekFor::hole, range), 8192U);
  EXPECT_EQ(range, (Range{8192, 65536}));
  EXPECT_EQ(find(extents, SeekFor::data, range), 8192U + 4096);
}

TEST(Seek, TellsWhereToLookNext) {
  Extents extents;
  extents.push_back(extent(4096, Kind::data));
  extents.push_back(extent(512, Kind::data));
  Range range{0, 8192};
  EXPECT_EQ(find(extents, SeekFor::hole, range), std::nullopt);
  EXPECT_EQ(range, (Range{4608, 8192 - 4608}));
}

TEST(Seek, TakesWhatCannotBeReadForData) {
  Extents extents;
  extents.push_back(extent(512, Kind::error));
  Range range{512, 512};
  EXPECT_EQ(find(extents, SeekFor::data, range), 512U);
  EXPECT_EQ(find(extents, SeekFor::hole, range), std::nullopt);
  EXPECT_TRUE(range.empty());
}

}  // namespace
}  // namespace oxbow::fuse
