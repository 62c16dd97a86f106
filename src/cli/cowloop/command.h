// SPDX-License-Identifier: Apache-2.0
#pragma once

// The commands that cowloop came with, for scripts and people that know them: links to the one binary, which goes by
// the name that it is called by. Arguments, output and exit statuses are those of cowloop 3.1; man/cowlist.1 and the
// other pages say where they differ.

#include <optional>
#include <string>

namespace oxbow::cowloop_commands {

// How one of them was called. Thread safety: a value.
struct Call {
  std::string program;  // argv[0]
  std::string usage;    // what wrong usage is answered with
  int argc = 0;
  char** argv = nullptr;
};

// Exit statuses that several of them share; the rest is in the manual page of each.
inline constexpr int k_done = 0;
inline constexpr int k_failed = 1;

// Runs the command of that name, if `argv[0]` is one, and returns its exit status.
[[nodiscard]] std::optional<int> run(int argc, char** argv);

int cowctl(const Call& call);
int cowdev(const Call& call);
int cowlist(const Call& call);
int cowmerge(const Call& call);
int cowpack(const Call& call);
int cowrepair(const Call& call);
int cowsync(const Call& call);
int cowwatch(const Call& call);

}  // namespace oxbow::cowloop_commands
