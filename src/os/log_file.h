// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "os/fd.h"
#include "oxbow/error.h"

namespace oxbow {

// A file that standard error goes to, and that can be opened again after it was moved away. Thread safety: a value.
class LogFile {
 public:
  // Opens it for appending, and makes it with mode 0640 when it is not there.
  [[nodiscard]] static Result<LogFile> open(const std::string& path);

  [[nodiscard]] int fd() const noexcept { return file_.get(); }
  // Makes it standard error.
  [[nodiscard]] Result<void> take_standard_error() const;
  // Opens the path again and makes that standard error; on failure everything stays as it was.
  [[nodiscard]] Result<void> reopen();

 private:
  LogFile(UniqueFd file, std::string path) noexcept : file_(std::move(file)), path_(std::move(path)) {}

  UniqueFd file_;
  std::string path_;  // absolute
};

}  // namespace oxbow
