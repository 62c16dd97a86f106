// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "os/fd.h"
#include "oxbow/error.h"

namespace oxbow {

// A file with the number of this process, which holds a lock on it as long as it lives: what a process left that
// was killed is taken over, the file of one that lives is not. Removed with the object. Thread safety: a value.
class PidFile {
 public:
  [[nodiscard]] static Result<PidFile> create(const std::string& path);
  PidFile(PidFile&& other) noexcept = default;
  PidFile& operator=(PidFile&& other) noexcept;
  PidFile(const PidFile&) = delete;
  PidFile& operator=(const PidFile&) = delete;
  ~PidFile();

 private:
  PidFile(UniqueFd file, std::string path) noexcept : file_(std::move(file)), path_(std::move(path)) {}
  void remove() noexcept;

  UniqueFd file_;
  std::string path_;  // absolute
};

}  // namespace oxbow
