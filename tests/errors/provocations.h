// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace oxbow::errors {

// What became of one request under a condition. Thread safety: a value.
struct Outcome {
  std::string operation;  // "write with FUA", as the table has it
  int number = 0;         // errno; 0: it succeeded
  int injected = 0;       // what the medium failed with; 0 when the condition is no failing medium
  bool sticky = false;    // the next change of sound data fails
  bool unchanged = true;  // its range reads as before
};

using Provocation = std::function<std::vector<Outcome>()>;

// By the names in the table's last column.
[[nodiscard]] const std::map<std::string, Provocation>& provocations();

}  // namespace oxbow::errors
