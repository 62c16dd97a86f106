// SPDX-License-Identifier: Apache-2.0
#include "cli/size.h"

#include <gtest/gtest.h>

namespace oxbow {
namespace {

TEST(ParseSize, KnowsUnits) {
  EXPECT_EQ(parse_size("0"), 0U);
  EXPECT_EQ(parse_size("4096"), 4096U);
  EXPECT_EQ(parse_size("4K"), 4096U);
  EXPECT_EQ(parse_size("4k"), 4096U);
  EXPECT_EQ(parse_size("16M"), 16U << 20);
  EXPECT_EQ(parse_size("2G"), std::uint64_t{2} << 30);
  EXPECT_EQ(parse_size("1t"), std::uint64_t{1} << 40);
  EXPECT_EQ(parse_size("8388607T"), std::uint64_t{8388607} << 40);
}

TEST(ParseSize, RefusesEverythingElse) {
  const std::string no_size = "is not a size; examples: 4096, 4K, 16M, 2G, 1T";
  EXPECT_EQ(parse_size("").error(), no_size);
  EXPECT_EQ(parse_size("K").error(), no_size);
  EXPECT_EQ(parse_size(" 1").error(), no_size);
  EXPECT_EQ(parse_size("-1").error(), "is negative");
  EXPECT_EQ(parse_size("1KB").error(), "has 'KB' after the number; units are K, M, G, T");
  EXPECT_EQ(parse_size("1.5G").error(), "has '.5G' after the number; units are K, M, G, T");
  EXPECT_EQ(parse_size("1E").error(), "has 'E' after the number; units are K, M, G, T");
  EXPECT_EQ(parse_size("8388608T").error(), "is too large");
  EXPECT_EQ(parse_size("9223372036854775808").error(), "is too large");
  EXPECT_EQ(parse_size("99999999999999999999").error(), "is too large");
}

TEST(FormatSize, RoundsUpToTwoDigits) {
  EXPECT_EQ(format_size(0), "0");
  EXPECT_EQ(format_size(1023), "1023");
  EXPECT_EQ(format_size(1024), "1.0K");
  EXPECT_EQ(format_size(1025), "1.1K");
  EXPECT_EQ(format_size(1536), "1.5K");
  EXPECT_EQ(format_size(10 << 10), "10K");
  EXPECT_EQ(format_size((10 << 10) + 1), "11K");
  EXPECT_EQ(format_size((1 << 20) - 1), "1.0M");
  EXPECT_EQ(format_size(256 << 20), "256M");
  EXPECT_EQ(format_size(std::uint64_t{1} << 40), "1.0T");
  EXPECT_EQ(format_size(~std::uint64_t{0} >> 1), "8.0E");
}

}  // namespace
}  // namespace oxbow
