// SPDX-License-Identifier: Apache-2.0
// Opening a FileStore: which file, with which lock, and what can be said when it doesn't work.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <utility>

#include "stores/file/direct_file.h"
#include "stores/file/file_store.h"

namespace oxbow {
namespace {

constexpr const char* k_cannot_open = "cannot open file";

Error refused(const std::string& path, const FileOptions& options, int number) {
  if (number == EISDIR) return {k_cannot_open, path, "it is a directory, not a file or block device"};
  if (number == EINVAL) return {k_cannot_open, path, "it is neither a regular file nor a block device"};
  if (number == EBUSY)
    return {k_cannot_open, path, "the block device is in use (mounted, or opened by another process)"};
  if (number == EROFS && options.writable)
    return {k_cannot_open, path, "its file system is mounted read-only"};
  return Error::from_errno(k_cannot_open, path, number);
}

Error lock_refused(const char* what, const std::string& path, int number) {
  if (number == EAGAIN) return {what, path, std::string(k_in_use_reason)};
  return Error::from_errno(what, path, number);
}

constexpr const char* k_no_direct =
    "its file system does not support direct I/O (O_DIRECT); leave direct I/O off";

int open_flags(const FileOptions& options, bool block_device) noexcept {
  // Not blocking, lest a FIFO that took the file's place waits for its other end.
  int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY | (options.writable ? O_RDWR : O_RDONLY);
  if (options.writable && block_device && options.lock == LockMode::exclusive) flags |= O_EXCL;
  return flags;
}

std::expected<UniqueFd, int> open_blocking(const std::string& path, int flags) noexcept {
  UniqueFd fd(::open(path.c_str(), flags));
  if (!fd.valid()) return std::unexpected(errno);
  // With O_NONBLOCK set, io_uring would answer EAGAIN instead of waiting.
  if (::fcntl(fd.get(), F_SETFL, flags & ~O_NONBLOCK) != 0) return std::unexpected(errno);
  return fd;
}

std::uint32_t logical_block_bytes(int fd) noexcept {
  int bytes = 0;
  return ::ioctl(fd, BLKSSZGET, &bytes) == 0 && bytes > 0 ? static_cast<std::uint32_t>(bytes) : 4096;
}

}  // namespace

Result<std::shared_ptr<FileStore>> FileStore::open(const std::string& path, const FileOptions& options) {
  const std::expected<FileIdentity, int> named = identify_path(path.c_str());
  if (!named) return std::unexpected(refused(path, options, named.error()));
  const int flags = open_flags(options, named->block_device) | (options.direct ? O_DIRECT : 0);
  std::expected<UniqueFd, int> fd = open_blocking(path, flags);
  if (!fd && fd.error() == EINVAL && options.direct)
    return std::unexpected(Error(k_cannot_open, path, k_no_direct));
  if (!fd) return std::unexpected(refused(path, options, fd.error()));
  return adopt(std::move(*fd), path, options);
}

Result<std::shared_ptr<FileStore>> FileStore::adopt(UniqueFd fd, const std::string& path,
                                                    const FileOptions& options) {
  const std::expected<FileIdentity, int> identity = identify_file(fd.get());
  if (!identity) return std::unexpected(refused(path, options, identity.error()));
  if (options.lock != LockMode::none) {
    const int error = lock_file(fd.get(), options.lock);
    if (error != 0) return std::unexpected(lock_refused(k_cannot_open, path, error));
  }
  Result<std::shared_ptr<FileStore>> store;
  if (options.direct) {
    store = make_direct(std::move(fd), path, options, *identity);
    if (!store) return store;
  } else {
    const std::uint32_t grain = identity->block_device ? logical_block_bytes(fd.get()) : 1;
    store->reset(new FileStore(std::move(fd), path, options, *identity, grain));
  }
  (*store)->lock_.store(options.lock, std::memory_order_relaxed);
  return store;
}

Result<std::shared_ptr<FileStore>> FileStore::make_direct(UniqueFd fd, const std::string& path,
                                                          const FileOptions& options,
                                                          const FileIdentity& identity) {
  const std::expected<DirectLimits, int> limits = direct_limits(fd.get(), identity.block_device);
  if (!limits) return std::unexpected(Error(k_cannot_open, path, k_no_direct));
  UniqueFd buffered;
  if (!identity.block_device) {
    std::expected<UniqueFd, int> second = open_blocking(path, open_flags(options, false));
    if (!second) return std::unexpected(refused(path, options, second.error()));
    const std::expected<FileIdentity, int> same = identify_file(second->get());
    if (!same || !same->same_file(identity)) {
      return std::unexpected(Error(k_cannot_open, path, "it was replaced while it was opened"));
    }
    // Nothing but the tail is read through it, so nothing else is to be read ahead.
    (void)::posix_fadvise(second->get(), 0, 0, POSIX_FADV_RANDOM);
    buffered = std::move(*second);
  }
  return std::shared_ptr<FileStore>(
      new DirectFile(std::move(fd), std::move(buffered), path, options, identity, *limits));
}

void FileStore::drop_cache() noexcept {
  views_.drop();  // what is mapped stays
  // Only what needs no writing is dropped. An error is of what the caller doesn't rely on; the second time all is
  // tried that the first one gave up.
  if (::fdatasync(fd_.get()) != 0) (void)::fdatasync(fd_.get());
  // Advice: where it isn't followed, what is read is what was read before.
  (void)::posix_fadvise(fd_.get(), 0, 0, POSIX_FADV_DONTNEED);
}

Result<void> FileStore::lock(LockMode mode) {
  const int error = lock_file(fd_.get(), mode);
  if (error != 0) return std::unexpected(lock_refused("cannot lock file", path_, error));
  lock_.store(mode, std::memory_order_relaxed);
  return {};
}

}  // namespace oxbow
