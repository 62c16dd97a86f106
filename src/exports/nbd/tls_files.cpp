// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/tls_files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "os/fd.h"

namespace oxbow::nbd {

// Beyond the size too: a short string that was moved from keeps its bytes inside the object.
void Secret::wipe() noexcept {
  bytes_.resize(bytes_.capacity());
  ::explicit_bzero(bytes_.data(), bytes_.size());
  bytes_.clear();
}

Result<Secret> read_secret(const std::string& what, const std::string& path) {
  constexpr off_t k_most = 1 << 20;
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat about{};
  if (!file.valid() || ::fstat(file.get(), &about) != 0) {
    return std::unexpected(Error::from_errno(what, path, errno));
  }
  if (!S_ISREG(about.st_mode)) return std::unexpected(Error(what, path, "it is no regular file"));
  if (about.st_size > k_most) return std::unexpected(Error(what, path, "it is larger than 1 MiB"));
  std::string bytes(static_cast<std::size_t>(about.st_size), '\0');
  std::size_t got = 0;
  while (got < bytes.size()) {
    const ssize_t now = ::read(file.get(), &bytes[got], bytes.size() - got);
    if (now < 0 && errno == EINTR) continue;
    if (now < 0) return std::unexpected(Error::from_errno(what, path, errno));
    if (now == 0) break;
    got += static_cast<std::size_t>(now);
  }
  bytes.resize(got);
  return Secret(std::move(bytes));
}

}  // namespace oxbow::nbd
