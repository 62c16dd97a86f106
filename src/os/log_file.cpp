// SPDX-License-Identifier: Apache-2.0
#include "os/log_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

#include "os/absolute_path.h"

namespace oxbow {

Result<LogFile> LogFile::open(const std::string& path) {
  UniqueFd file(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0640));
  if (!file.valid()) return std::unexpected(Error::from_errno("cannot open log file", path, errno));
  return LogFile(std::move(file), absolute_path(path));
}

Result<void> LogFile::take_standard_error() const {
  if (::dup2(file_.get(), STDERR_FILENO) >= 0) return {};
  return std::unexpected(Error::from_errno("cannot log to file", path_, errno));
}

Result<void> LogFile::reopen() {
  auto again = open(path_);
  if (!again) return std::unexpected(std::move(again.error()));
  if (auto taken = again->take_standard_error(); !taken) return taken;
  *this = std::move(*again);
  return {};
}

}  // namespace oxbow
