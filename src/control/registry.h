// SPDX-License-Identifier: Apache-2.0
#pragma once

// Who serves what in a run directory. Each serving process has two files there:
//
//   ID.control   its control socket
//   ID.lock      a line of JSON that says who it is and which names it has; an exclusive OFD lock is held on it as
//                long as the process lives, however it ends
//
// ID is the process's number, with "-2" and so on where that is taken (processes of two PID namespaces may share a
// directory). A record is written and locked under another name before it appears, so one that is seen unlocked
// belongs to a process that is gone; the files of loop devices (oxbow-loop(7)) go with its names. Only who holds the
// directory's flock() adds records or removes those of others; so a name has one holder and nobody removes the files
// of a process that has just come.

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "os/fd.h"
#include "oxbow/error.h"

namespace oxbow::control {

// What a serving process has written down of itself. Thread safety: a value.
struct Record {
  std::uint64_t pid = 0;
  std::string command;  // its arguments, joined by blanks
  std::vector<std::string> names;
  std::string socket;  // path of its control socket; not part of the file
};

// A process's place in a run directory: its listening socket and its names, given up with the object.
// Thread safety: one thread.
class Registration {
 public:
  // Cleans up after dead processes, makes sure that no living one has one of the names, binds the control socket
  // (mode 0600 from its first moment) and listens on it. Waits at most `patience` for others who do the same.
  [[nodiscard]] static Result<Registration> make(
      const std::string& directory, std::vector<std::string> names,
      std::chrono::milliseconds patience = std::chrono::milliseconds(5'000));
  Registration(Registration&& other) noexcept;
  Registration& operator=(Registration&&) = delete;
  Registration(const Registration&) = delete;
  Registration& operator=(const Registration&) = delete;
  ~Registration();

  // Takes one more name.
  [[nodiscard]] Result<void> add(const std::string& name, std::chrono::milliseconds patience);
  [[nodiscard]] int socket() const noexcept { return socket_.get(); }
  [[nodiscard]] const Record& record() const noexcept { return record_; }

 private:
  Registration(UniqueFd directory, std::string id, Record record) noexcept;

  UniqueFd directory_;
  std::string id_;
  Record record_;
  UniqueFd socket_;
  UniqueFd lock_;
};

// The processes that live, by pid. What dead ones left is removed on the way, unless somebody else is about to
// change the directory. A directory that is not there has none.
[[nodiscard]] Result<std::vector<Record>> list_records(const std::string& directory);

}  // namespace oxbow::control
