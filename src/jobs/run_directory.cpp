// SPDX-License-Identifier: Apache-2.0
#include "jobs/run_directory.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace oxbow {
namespace {

constexpr auto k_what = "cannot use run directory";

}  // namespace

Result<UniqueFd> open_run_directory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return std::unexpected(Error::from_errno(k_what, path, errno));
  struct stat found{};
  if (::fstat(fd.get(), &found) != 0) return std::unexpected(Error::from_errno(k_what, path, errno));
  if (found.st_uid != ::geteuid()) {
    return std::unexpected(
        Error(k_what, path, "it belongs to another user (uid " + std::to_string(found.st_uid) + ")"));
  }
  if ((found.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return std::unexpected(Error(k_what, path, "others can write to it; chmod go-w takes that away"));
  }
  return fd;
}

std::string run_directory_path() {
  const char* const runtime = std::getenv("XDG_RUNTIME_DIR");
  return (runtime != nullptr && *runtime == '/' ? std::string(runtime) : "/run") + "/oxbow";
}

Result<std::string> run_directory() {
  std::string path = run_directory_path();
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return std::unexpected(Error::from_errno("cannot make run directory", path, errno));
  }
  if (auto opened = open_run_directory(path); !opened) return std::unexpected(opened.error());
  return path;
}

}  // namespace oxbow
