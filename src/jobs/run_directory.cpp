// SPDX-License-Identifier: Apache-2.0
#include "jobs/run_directory.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>

namespace oxbow {

Result<std::string> run_directory() {
  const char* const runtime = std::getenv("XDG_RUNTIME_DIR");
  std::string path = (runtime != nullptr && *runtime == '/' ? std::string(runtime) : "/run") + "/oxbow";
  if (::mkdir(path.c_str(), 0700) == 0) return path;
  const int error = errno;
  struct stat found{};
  if (error == EEXIST && ::stat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode)) return path;
  return std::unexpected(
      Error::from_errno("cannot make run directory", path, error == EEXIST ? ENOTDIR : error));
}

}  // namespace oxbow
