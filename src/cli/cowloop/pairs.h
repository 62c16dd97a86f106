// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "control/registry.h"
#include "oxbow/error.h"

namespace oxbow::cowloop_commands {

// A cowloop pair that a process serves. Thread safety: a value.
struct Pair {
  control::Record process;
  std::string name;     // of the device
  std::string cowfile;  // its path; empty while the pair has let go of it
  std::string source;   // what it was made from, in the words of the command line
  std::string base;     // the path of its read-only file; empty as above
  std::string device;   // the block device that shows it ("/dev/loop0"); empty: none does
};

// What is known of the served pairs: those that answered, and why others could not be asked.
struct Pairs {
  std::vector<Pair> found;
  std::vector<Error> unknown;
};
[[nodiscard]] Result<Pairs> served_pairs();

// The pair that `word` names: a device as `oxbow list` shows it, the path of its block device, or that of its cowfile.
[[nodiscard]] Result<Pair> find_pair(const std::string& word);

// POST of `request` ("sync") to the pair's device; returns when it has been carried out.
[[nodiscard]] Result<void> ask(const Pair& pair, const std::string& request);

}  // namespace oxbow::cowloop_commands
