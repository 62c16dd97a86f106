// SPDX-License-Identifier: Apache-2.0
#include "jobs/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <span>

#include "os/process_info.h"
#include "stores/file/file_store.h"

namespace oxbow {
namespace {

constexpr const char* k_exists = "it exists already; --force replaces it";

std::string directory_of(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

}  // namespace

OutputFile::OutputFile(OutputFile&& other) noexcept
    : what_(std::move(other.what_)),
      path_(std::move(other.path_)),
      own_name_(std::move(other.own_name_)),
      has_name_(std::exchange(other.has_name_, false)),
      replace_(other.replace_),
      fd_(std::move(other.fd_)),
      directory_(std::move(other.directory_)),
      replaced_(std::move(other.replaced_)) {}

OutputFile::~OutputFile() {
  if (has_name_) ::unlink(own_name_.c_str());
}

Error OutputFile::failed(int number) const { return Error::from_errno(what_, path_, number); }

Result<OutputFile> OutputFile::make(std::string what, std::string path, bool replace) {
  OutputFile file;
  file.what_ = std::move(what);
  file.path_ = std::move(path);
  file.replace_ = replace;
  struct stat found{};
  if (::lstat(file.path_.c_str(), &found) == 0) {
    if (!replace) return std::unexpected(Error(file.what_, file.path_, k_exists));
    if (!S_ISREG(found.st_mode))
      return std::unexpected(Error(file.what_, file.path_, "it is no regular file, which could be replaced"));
    auto old = FileStore::open(file.path_, {.writable = true, .lock = LockMode::exclusive});
    if (!old) return std::unexpected(Error(file.what_, file.path_, old.error().why()));
    file.replaced_ = std::move(*old);
  }
  const std::string directory = directory_of(file.path_);
  file.directory_.reset(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!file.directory_.valid()) return std::unexpected(file.failed(errno));
  std::uint64_t number = 0;
  if (!fill_random(std::as_writable_bytes(std::span(&number, 1))))
    return std::unexpected(Error(file.what_, "random numbers", "the kernel has none to give"));
  const std::string last = std::filesystem::path(file.path_).filename().string();
  file.own_name_ = fmt::format("{}/.{}.{:016x}", directory, last, number);
  file.fd_.reset(::open(directory.c_str(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0666));
  if (file.fd_.valid()) return file;
  if (errno != EOPNOTSUPP && errno != EISDIR) return std::unexpected(file.failed(errno));
  file.fd_.reset(::open(file.own_name_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (!file.fd_.valid()) return std::unexpected(file.failed(errno));
  file.has_name_ = true;
  return file;
}

std::string OutputFile::path_for_opening() const { return fmt::format("/proc/self/fd/{}", fd_.get()); }

// Returns the errno value.
int OutputFile::name(const std::string& name) noexcept {
  const int done = has_name_ ? ::link(own_name_.c_str(), name.c_str())
                             : ::linkat(AT_FDCWD, fmt::format("/proc/self/fd/{}", fd_.get()).c_str(),
                                        AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW);
  return done == 0 ? 0 : errno;
}

int OutputFile::give_name() noexcept {
  if (!replace_) {
    if (const int error = name(path_); error != 0) return error;
    if (has_name_ && ::unlink(own_name_.c_str()) != 0) return errno;
    has_name_ = false;
    return 0;
  }
  if (!has_name_) {
    if (const int error = name(own_name_); error != 0) return error;
    has_name_ = true;
  }
  if (::rename(own_name_.c_str(), path_.c_str()) != 0) return errno;
  has_name_ = false;
  return 0;
}

Result<void> OutputFile::publish() {
  if (::fsync(fd_.get()) != 0) return std::unexpected(failed(errno));
  const int error = give_name();
  if (error == EEXIST) return std::unexpected(Error(what_, path_, k_exists));
  if (error != 0) return std::unexpected(failed(error));
  if (::fsync(directory_.get()) != 0) return std::unexpected(failed(errno));
  return {};
}

}  // namespace oxbow
