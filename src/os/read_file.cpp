// SPDX-License-Identifier: Apache-2.0
#include "os/read_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "os/fd.h"

namespace oxbow {

Result<std::string> read_all(int fd, const std::string& what, const std::string& name, std::size_t most) {
  std::string text;
  std::array<char, 65536> part;
  for (;;) {
    const ssize_t got = ::read(fd, part.data(), part.size());
    if (got == 0) return text;
    if (got < 0 && errno != EINTR) return std::unexpected(Error::from_errno(what, name, errno));
    if (got > 0) text.append(part.data(), static_cast<std::size_t>(got));
    if (text.size() > most)
      return std::unexpected(Error(what, name, "it is larger than " + std::to_string(most) + " bytes"));
  }
}

Result<std::string> read_file(const std::string& path, const std::string& what, std::size_t most) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return std::unexpected(Error::from_errno(what, path, errno));
  return read_all(fd.get(), what, path, most);
}

}  // namespace oxbow
