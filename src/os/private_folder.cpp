// SPDX-License-Identifier: Apache-2.0
#include "os/private_folder.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>

namespace oxbow {

Result<PrivateFolder> PrivateFolder::create() {
  const char* const temporary = std::getenv("TMPDIR");
  const std::string pattern =
      (temporary != nullptr && *temporary == '/' ? std::string(temporary) : "/tmp") + "/oxbow-XXXXXX";
  std::string path = pattern;
  if (::mkdtemp(path.data()) == nullptr)
    return std::unexpected(Error::from_errno("cannot make folder", pattern, errno));
  return PrivateFolder(std::move(path));
}

PrivateFolder::~PrivateFolder() {
  // What somebody else put there is not ours to remove.
  if (!path_.empty()) (void)::rmdir(path_.c_str());
}

}  // namespace oxbow
