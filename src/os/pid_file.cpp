// SPDX-License-Identifier: Apache-2.0
#include "os/pid_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "os/absolute_path.h"

namespace oxbow {
namespace {

constexpr auto k_what = "cannot make PID file";

// Whether `path` still leads to the file: its last owner may have removed it before the lock was had.
bool still_at(const UniqueFd& file, const std::string& path) {
  struct ::stat held{};
  struct ::stat named{};
  return ::fstat(file.get(), &held) == 0 && ::stat(path.c_str(), &named) == 0 &&
         held.st_dev == named.st_dev && held.st_ino == named.st_ino;
}

}  // namespace

Result<PidFile> PidFile::create(const std::string& path) {
  for (;;) {
    UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644));
    if (!file.valid()) return std::unexpected(Error::from_errno(k_what, path, errno));
    struct ::stat found{};
    if (::fstat(file.get(), &found) != 0) return std::unexpected(Error::from_errno(k_what, path, errno));
    if (!S_ISREG(found.st_mode)) return std::unexpected(Error(k_what, path, "it exists and is not a file"));
    if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
      if (errno != EWOULDBLOCK) return std::unexpected(Error::from_errno(k_what, path, errno));
      return std::unexpected(Error(k_what, path, "it belongs to another process, which is alive"));
    }
    if (!still_at(file, path)) continue;
    const std::string text = std::to_string(::getpid()) + "\n";
    if (::ftruncate(file.get(), 0) != 0 ||
        ::pwrite(file.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size())) {
      return std::unexpected(Error::from_errno(k_what, path, errno));
    }
    return PidFile(std::move(file), absolute_path(path));
  }
}

PidFile& PidFile::operator=(PidFile&& other) noexcept {
  if (this == &other) return *this;
  remove();
  file_ = std::move(other.file_);
  path_ = std::move(other.path_);
  return *this;
}

PidFile::~PidFile() { remove(); }

void PidFile::remove() noexcept {
  // A file left behind is harmless: its lock is gone with the process.
  if (file_.valid() && still_at(file_, path_)) (void)::unlink(path_.c_str());
  file_.reset();
}

}  // namespace oxbow
