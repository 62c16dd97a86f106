// SPDX-License-Identifier: Apache-2.0
#include "targets/table/table_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "targets/argument.h"

namespace oxbow {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::string why(std::string_view text) {
  const auto lines = parse_table(text, "t");
  return lines ? "it loaded" : lines.error().text();
}

TEST(TableText, ReadsLinesAsDmsetupDoes) {
  const auto lines = parse_table(
      "# a comment\n"
      "\n"
      "  0 8 linear /dev/sda 16  \r\n"
      "\t# another one\n"
      "8\t24  zero",
      "t");
  ASSERT_TRUE(lines.has_value()) << lines.error().text();
  ASSERT_EQ(lines->size(), 2U);
  EXPECT_EQ((*lines)[0].number, 3U);
  EXPECT_EQ((*lines)[0].start, 0U);
  EXPECT_EQ((*lines)[0].length, 8U);
  EXPECT_EQ((*lines)[0].type, "linear");
  EXPECT_THAT((*lines)[0].args, ElementsAre("/dev/sda", "16"));
  EXPECT_EQ((*lines)[1].number, 5U);
  EXPECT_EQ((*lines)[1].start, 8U);
  EXPECT_EQ((*lines)[1].length, 24U);
  EXPECT_EQ((*lines)[1].type, "zero");
  EXPECT_THAT((*lines)[1].args, IsEmpty());
}

TEST(TableText, AHashInTheMiddleOfALineIsAWord) {
  const auto lines = parse_table("0 8 linear #1 # 0\n", "t");
  ASSERT_TRUE(lines.has_value());
  EXPECT_THAT(lines->front().args, ElementsAre("#1", "#", "0"));
}

TEST(TableText, ABackslashTakesTheMeaningAwayFromTheNextCharacter) {
  const auto lines = parse_table("0 8 file /a\\ b\\\\c\\\nd\\\te\\xf 0\n8 8 nonsense\n", "t");
  ASSERT_TRUE(lines.has_value()) << lines.error().text();
  EXPECT_THAT(lines->front().args, ElementsAre("/a b\\c\nd\texf", "0"));
  EXPECT_EQ((*lines)[1].number, 3U) << "the newline inside the path counts";
}

TEST(TableText, PrintsWithEscapes) {
  const std::vector<TableLine> lines = {{1, 0, 8, "file", {"/a b\\c\nd\te", "0"}}, {2, 8, 1, "zero", {}}};
  EXPECT_EQ(print_table(lines), "0 8 file /a\\ b\\\\c\\\nd\\\te 0\n8 1 zero\n");
}

TEST(TableText, RefusesWhatIsNoTable) {
  EXPECT_EQ(why(""), "cannot load table: t: it has no lines");
  EXPECT_EQ(why("# nothing\n\n"), "cannot load table: t: it has no lines");
  EXPECT_EQ(why("0 8"), "cannot load table: t line 1: START LENGTH TARGET are needed");
  EXPECT_EQ(why("0 8 zero\nrubbish\n"), "cannot load table: t line 2: START LENGTH TARGET are needed");
  EXPECT_EQ(why("0 8 zero \\"), "cannot load table: t line 1: ends with a backslash that escapes nothing");
  EXPECT_EQ(why(std::string_view("0 8 ze\0ro", 9)), "cannot load table: t line 1: has a NUL byte in it");
  EXPECT_EQ(why(std::string_view("0 8 zero \\\0", 11)), "cannot load table: t line 1: has a NUL byte in it");
}

TEST(TableText, RefusesWrongNumbers) {
  EXPECT_EQ(why("x 8 zero"), "cannot load table: t line 1: start x is not a number");
  EXPECT_EQ(why("0 8k zero"), "cannot load table: t line 1: length 8k has 'k' after the number");
  EXPECT_EQ(why("0 0x8 zero"), "cannot load table: t line 1: length 0x8 has 'x8' after the number");
  EXPECT_EQ(why("0 8.5 zero"), "cannot load table: t line 1: length 8.5 has '.5' after the number");
  EXPECT_EQ(why("-1 8 zero"), "cannot load table: t line 1: start -1 is negative");
  EXPECT_EQ(why("0 -8 zero"), "cannot load table: t line 1: length -8 is negative");
  EXPECT_EQ(why("+0 8 zero"), "cannot load table: t line 1: start +0 is not a number");
  EXPECT_EQ(why("0 99999999999999999999 zero"),
            "cannot load table: t line 1: length 99999999999999999999 is too large");
  EXPECT_EQ(why("0 0 zero"), "cannot load table: t line 1: its length is 0");
}

TEST(TableText, RefusesMoreThanADeviceCanHold) {
  const std::string_view beyond = "it ends beyond the largest possible device, 2^63 bytes";
  EXPECT_TRUE(parse_table("0 18014398509481983 zero", "t").has_value());
  EXPECT_EQ(why("0 18014398509481984 zero"), "cannot load table: t line 1: " + std::string(beyond));
  EXPECT_EQ(why("0 1 zero\n1 18014398509481983 zero"), "cannot load table: t line 2: " + std::string(beyond));
  EXPECT_EQ(why("0 1 zero\n18446744073709551615 1 zero"),
            "cannot load table: t line 2: " + std::string(beyond));
}

TEST(TableText, RefusesGapsAndOverlaps) {
  EXPECT_EQ(why("8 8 zero"), "cannot load table: t line 1: the first line starts at 8, it has to start at 0");
  EXPECT_EQ(why("0 8 zero\n# c\n9 8 zero"),
            "cannot load table: t line 3: a gap: it starts at 9, the line before it ends at 8");
  EXPECT_EQ(why("0 8 zero\n7 8 zero"),
            "cannot load table: t line 2: an overlap: it starts at 7, the line before it ends at 8");
  EXPECT_EQ(why("0 8 zero\n0 8 zero"),
            "cannot load table: t line 2: an overlap: it starts at 0, the line before it ends at 8");
}

TEST(ParseNumber, TakesTheWholeWordOrNothing) {
  EXPECT_EQ(parse_number("0"), 0U);
  EXPECT_EQ(parse_number("18446744073709551615"), 18446744073709551615U);
  EXPECT_EQ(parse_number("").error(), "is empty");
  EXPECT_EQ(parse_number("-").error(), "is not a number");
  EXPECT_EQ(parse_number(" 1").error(), "is not a number");
  EXPECT_EQ(parse_number("1 ").error(), "has ' ' after the number");
  EXPECT_EQ(parse_number("18446744073709551616").error(), "is too large");
  EXPECT_EQ(parse_number("-9x").error(), "has 'x' after the number");
}

}  // namespace
}  // namespace oxbow
