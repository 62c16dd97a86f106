// SPDX-License-Identifier: Apache-2.0
// Tables made at random: what is printed reads back as the same table, and prints the same again.

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include "targets/table/table_text.h"

namespace oxbow {
namespace {

// Words rich in the characters that need care; any byte but NUL, never empty.
rc::Gen<std::string> word() {
  const auto character = rc::gen::weightedOneOf<char>({
      {4, rc::gen::inRange('a', 'z')},
      {3, rc::gen::elementOf(std::string(" \t\n\v\f\r\\#/\"'"))},
      {1, rc::gen::map(rc::gen::inRange(1, 256), [](int byte) { return static_cast<char>(byte); })},
  });
  return rc::gen::nonEmpty(rc::gen::container<std::string>(character));
}

rc::Gen<std::vector<TableLine>> table() {
  const auto line = rc::gen::build<TableLine>(
      rc::gen::set(&TableLine::length, rc::gen::inRange<std::uint64_t>(1, std::uint64_t{1} << 40)),
      rc::gen::set(&TableLine::type, word()),
      rc::gen::set(&TableLine::args, rc::gen::container<std::vector<std::string>>(word())));
  const auto lines = rc::gen::nonEmpty(rc::gen::container<std::vector<TableLine>>(line));
  return rc::gen::map(lines, [](std::vector<TableLine> made) {
    std::uint64_t end = 0;
    for (TableLine& each : made) {
      each.start = end;
      end += each.length;
    }
    return made;
  });
}

// The line numbers depend on how the text is laid out and are not part of the table.
std::vector<TableLine> without_numbers(std::vector<TableLine> lines) {
  for (TableLine& line : lines) line.number = 0;
  return lines;
}

void expect(bool held) { EXPECT_TRUE(held); }

TEST(TableProperty, PrintedTablesLoadAndPrintTheSame) {
  expect(rc::check("print, load, print", [] {
    const auto lines = *table();
    const std::string text = print_table(lines);
    const auto loaded = parse_table(text, "table");
    if (!loaded) RC_FAIL(loaded.error().text());
    RC_ASSERT(without_numbers(*loaded) == without_numbers(lines));
    RC_ASSERT(print_table(*loaded) == text);
  }));
}

TEST(TableProperty, AnyTextIsRefusedOrReadsBack) {
  expect(rc::check("load anything", [] {
    const auto fragment = rc::gen::oneOf(word(), rc::gen::elementOf(std::vector<std::string>{
                                                     "0 8 zero\n", "8 8 error\n", " ", "\n", "#", "\\"}));
    std::string text;
    for (const std::string& each : *rc::gen::container<std::vector<std::string>>(fragment)) text += each;
    const auto loaded = parse_table(text, "table");
    RC_CLASSIFY(loaded.has_value(), "loaded");
    if (!loaded) {
      RC_ASSERT(!loaded.error().why().empty());
      return;
    }
    const auto again = parse_table(print_table(*loaded), "table");
    RC_ASSERT(again.has_value());
    RC_ASSERT(without_numbers(*again) == without_numbers(*loaded));
  }));
}

}  // namespace
}  // namespace oxbow
