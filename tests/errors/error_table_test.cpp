// SPDX-License-Identifier: Apache-2.0
// docs/errors.md against the code.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

#include "errors/provocations.h"

namespace oxbow::errors {
namespace {

struct Row {
  std::vector<std::string> operations;
  std::string condition, number, data, name;
};

std::string trimmed(const std::string& text) {
  const auto first = text.find_first_not_of(" `");
  const auto last = text.find_last_not_of(" `");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, at);) parts.push_back(trimmed(part));
  return parts;
}

// The rows of the table under "## Requests".
std::vector<Row> rows() {
  const char* root = std::getenv("OXBOW_SOURCE_DIR");
  std::ifstream in(std::string(root == nullptr ? "." : root) + "/docs/errors.md");
  std::vector<Row> found;
  bool within = false;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("## ")) within = line == "## Requests";
    if (!within || !line.starts_with("| ") || line.starts_with("| operation")) continue;
    const auto cells = split(line, '|');
    EXPECT_EQ(cells.size(), 7U) << "a row has six cells: " << line;
    if (cells.size() == 7) found.push_back({split(cells[1], ','), cells[2], cells[3], cells[4], cells[6]});
  }
  return found;
}

// The errno values that the cell names.
std::set<std::string> named(const std::string& cell) {
  static const std::regex name("E[A-Z]+");
  std::set<std::string> found;
  for (std::sregex_iterator at(cell.begin(), cell.end(), name), end; at != end; ++at) found.insert(at->str());
  return found;
}

void expect_number(const Row& row, const Outcome& outcome) {
  const std::string what = row.name + ", " + outcome.operation;
  if (row.number == "–") {
    EXPECT_EQ(outcome.number, 0) << what << ": " << std::strerror(outcome.number);
  } else if (row.number.starts_with("its errno")) {
    EXPECT_NE(outcome.injected, 0) << what;
    EXPECT_EQ(outcome.number, outcome.injected) << what << ": " << std::strerror(outcome.number);
  } else {
    EXPECT_TRUE(named(row.number).contains(::strerrorname_np(outcome.number)))
        << what << ": " << std::strerror(outcome.number) << ", the table says " << row.number;
  }
}

TEST(ErrorTable, EveryRowIsWhatHappens) {
  std::set<std::string> used;
  unsigned provoked = 0;
  for (const Row& row : rows()) {
    if (row.name.starts_with("not: ")) continue;
    const auto found = provocations().find(row.name);
    ASSERT_NE(found, provocations().end())
        << "no provocation is called \"" << row.name << "\": " << row.condition;
    EXPECT_TRUE(used.insert(row.name).second) << row.name << " is there twice";
    const std::vector<Outcome> outcomes = found->second();
    std::set<std::string> operations;
    for (const Outcome& outcome : outcomes) {
      operations.insert(outcome.operation);
      expect_number(row, outcome);
      EXPECT_EQ(outcome.sticky, row.number.find("**sticky**") != std::string::npos)
          << row.name << ", " << outcome.operation;
      if (row.data.starts_with("unchanged")) {
        EXPECT_TRUE(outcome.unchanged) << row.name << ", " << outcome.operation;
      }
      ++provoked;
    }
    EXPECT_EQ(operations, std::set<std::string>(row.operations.begin(), row.operations.end())) << row.name;
  }
  EXPECT_GT(provoked, 40U);
  for (const auto& [name, provocation] : provocations())
    EXPECT_TRUE(used.contains(name)) << name << " has no row";
}

}  // namespace
}  // namespace oxbow::errors
