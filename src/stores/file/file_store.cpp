// SPDX-License-Identifier: Apache-2.0
#include "stores/file/file_store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cassert>
#include <utility>

#include "os/absolute_path.h"
#include "os/queue.h"
#include "os/ring.h"
#include "os/transfer.h"

namespace oxbow {

FileStore::FileStore(UniqueFd fd, std::string path, const FileOptions& options, const FileIdentity& identity,
                     std::uint32_t grain_bytes)
    : fd_(std::move(fd)),
      path_(std::move(path)),
      absolute_path_(absolute_path(path_)),
      options_(options),
      identity_(identity),
      size_(identity.size_bytes),
      for_durable_(fd_.get()),
      space_(fd_.get(), identity.block_device, grain_bytes),
      reserve_(fd_.get(), identity.block_device ? 0 : options.reserve_bytes),
      views_(fd_.get(), identity.size_bytes) {}

Progress FileStore::read(Io& io, std::uint64_t at, std::span<std::byte> out, ReadMode mode) noexcept {
  assert((Range{at, out.size()}.fits(size())));
  if (!no_nowait_.load(std::memory_order_relaxed)) {
    const Moved moved = read_at(fd_.get(), at, out, RWF_NOWAIT);
    const int error = moved.status.error_number();
    if (error == EOPNOTSUPP) {
      no_nowait_.store(true, std::memory_order_relaxed);
    } else if (error != EAGAIN) {
      if (error == 0) views_.was_read({at, out.size()});
      return Progress::done(moved.status);
    } else if (mode == ReadMode::no_wait) {
      return Progress::would_block();
    }
    at += moved.bytes;
    out = out.subspan(moved.bytes);
  }
  Ring* ring = mode == ReadMode::no_wait ? nullptr : io.queue->ring();
  if (ring == nullptr) {
    const IoStatus status = read_at(fd_.get(), at, out).status;
    if (status.ok()) views_.was_read({at, out.size()});
    return Progress::done(status);
  }
  io.iov.clear();
  io.iov.push_back({out.data(), out.size()});
  return ring->read(io, fd_.get(), at);
}

Progress FileStore::write(Io& io, std::uint64_t at, WriteMode mode) noexcept {
  if (!options_.writable) return Progress::failed(EROFS);
  const Range range{at, iov_bytes(io.iov)};
  assert(range.fits(size()));
  const IoStatus status =
      mode == WriteMode::cached ? write_all(fd_.get(), at, io.iov) : write_durably(at, io.iov);
  if (status.ok()) views_.was_written(range);
  return Progress::done(status);
}

IoStatus FileStore::write_durably(std::uint64_t at, IovList& iov) noexcept {
  if (const DescriptionPool::Lease own = for_durable_.take()) return write_durably(own.fd(), at, iov);
  return barrier_.durable_write([&] { return write_durably(fd_.get(), at, iov); });
}

IoStatus FileStore::write_durably(int fd, std::uint64_t at, IovList& iov) noexcept {
  IovList again = iov;
  const IoStatus status = write_all(fd, at, iov, RWF_DSYNC);
  if (!status.is_lack_of_room()) return status;
  // Was there no room for the bytes, or did writing back run out of it, which is a failed barrier? The first fails
  // again without one.
  return write_all(fd, at, again).ok() ? IoStatus::error(EIO) : status;
}

Progress FileStore::zero(Io& /*io*/, Range range, ZeroMode mode) noexcept {
  if (!options_.writable) return Progress::failed(EROFS);
  assert(range.fits(size()));
  views_.forget(range);
  return Progress::done(range.empty() ? IoStatus{} : space_.zero(range, mode));
}

Progress FileStore::discard(Io& /*io*/, Range range) noexcept {
  if (!options_.writable) return Progress::failed(EROFS);
  assert(range.fits(size()));
  views_.forget(range);
  return Progress::done(range.empty() ? IoStatus{} : space_.discard(range));
}

Progress FileStore::sync(Io& /*io*/) noexcept {
  // One that is only read is a base, known again by its modification time, which fdatasync leaves out.
  return Progress::done(sync_with(options_.writable ? ::fdatasync : ::fsync));
}

IoStatus FileStore::sync_with(int (*call)(int)) noexcept {
  return barrier_.sync([this, call] {
    while (call(fd_.get()) != 0) {
      if (errno != EINTR) return IoStatus::error(errno);
    }
    return IoStatus{};
  });
}

// Waits for one page at most; the error that it tells is the whole file's.
IoStatus FileStore::written_back() noexcept {
  return barrier_.sync([this] {
    const bool ok = ::sync_file_range(fd_.get(), 0, 1, SYNC_FILE_RANGE_WAIT_BEFORE) == 0;
    return ok ? IoStatus{} : IoStatus::error(errno);
  });
}

Progress FileStore::allocate(Io& /*io*/, Range range) noexcept {
  if (!options_.writable) return Progress::failed(EROFS);
  const IoStatus spare = room(range);
  return Progress::done(spare.ok() ? space_.allocate(range) : spare);
}

Progress FileStore::grow(Io& /*io*/, std::uint64_t size) noexcept {
  if (!options_.writable) return Progress::failed(EROFS);
  if (size < this->size()) return Progress::failed(EINVAL);
  const std::expected<FileIdentity, int> now = identify_file(fd_.get());
  if (!now) return Progress::failed(now.error());
  if (identity_.block_device) {
    if (size > now->size_bytes) return Progress::failed(ENOSPC);
  } else {
    // Somebody else changed the length: what they added wouldn't read as zeros, and must not be cut off
    // either.
    if (now->size_bytes != this->size()) return Progress::failed(ESTALE);
    while (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) {
      if (errno != EINTR) return Progress::failed(errno);
    }
  }
  views_.grow(size);
  size_.store(size, std::memory_order_release);
  return Progress::done();
}

Progress FileStore::follow_growth(Io& /*io*/) noexcept {
  const std::expected<FileIdentity, int> now = identify_file(fd_.get());
  if (!now) return Progress::failed(now.error());
  if (now->size_bytes <= size()) return Progress::done();
  views_.grow(now->size_bytes);
  size_.store(now->size_bytes, std::memory_order_release);
  return Progress::done();
}

bool FileStore::find_extent(std::uint64_t at, std::uint64_t end, Extent& piece) noexcept {
  const off_t data = ::lseek(fd_.get(), static_cast<off_t>(at), SEEK_DATA);
  if (data < 0 && errno != ENXIO) return false;
  if (data < 0) {
    // No data up to the end of the file; which, if the file was cut short meanwhile, is not the end of the
    // store.
    const std::expected<FileIdentity, int> now = identify_file(fd_.get());
    if (!now || now->size_bytes < end) return false;
    piece = {end - at, Kind::zero, 0, this, at};
    return true;
  }
  const auto data_at = static_cast<std::uint64_t>(data);
  if (data_at > at) {
    piece = {std::min(data_at, end) - at, Kind::zero, 0, this, at};
    return true;
  }
  const off_t hole = ::lseek(fd_.get(), data, SEEK_HOLE);
  if (hole <= data) return false;
  piece = {std::min(static_cast<std::uint64_t>(hole), end) - at, Kind::data, 0, this, at};
  return true;
}

std::uint64_t FileStore::extents(Range range, Extents& out) noexcept {
  assert(range.fits(size()) && !range.empty() && !out.full());
  std::uint64_t at = range.offset;
  while (at < range.end() && !out.full()) {
    Extent piece{range.end() - at, Kind::data, 0, this, at};
    if (!identity_.block_device) (void)find_extent(at, range.end(), piece);
    out.push_back(piece);
    at += piece.length;
  }
  return at - range.offset;
}

void FileStore::prefetch(Range range) noexcept {
  if (direct() || range.empty()) return;  // a length of 0 would mean all that follows
  (void)::posix_fadvise(fd_.get(), static_cast<off_t>(range.offset), static_cast<off_t>(range.length),
                        POSIX_FADV_WILLNEED);
}

Result<FileIdentity> FileStore::durable_identity() {
  const IoStatus synced = sync_with(::fsync);
  if (!synced.ok())
    return std::unexpected(Error::from_errno("cannot make file durable", path_, synced.error_number()));
  return current_identity();
}

Result<FileIdentity> FileStore::current_identity() const {
  const std::expected<FileIdentity, int> now = identify_file(fd_.get());
  if (!now) return std::unexpected(Error::from_errno("cannot look at file", path_, now.error()));
  return *now;
}

StoreFacts FileStore::facts() const {
  StoreFacts facts{absolute_path_, size()};
  struct ::stat file{};
  if (::fstat(fd_.get(), &file) != 0 || !S_ISREG(file.st_mode)) return facts;
  facts.allocated_bytes = static_cast<std::uint64_t>(file.st_blocks) * 512;
  facts.free_bytes = free_bytes();
  struct ::statvfs space{};
  if (::fstatvfs(fd_.get(), &space) == 0)
    facts.total_bytes = std::uint64_t{space.f_blocks} * std::uint64_t{space.f_frsize};
  return facts;
}

IoStatus FileStore::room(Range range) noexcept {
  const IoStatus spare = reserve_.take(range.length);
  if (spare.error_number() != ENOSPC) return spare;
  const off_t hole = ::lseek(fd_.get(), static_cast<off_t>(range.offset), SEEK_HOLE);
  return hole >= 0 && static_cast<std::uint64_t>(hole) >= range.end() ? IoStatus{} : spare;
}

std::optional<std::uint64_t> FileStore::free_bytes() const noexcept {
  struct ::statvfs space{};
  if (::fstatvfs(fd_.get(), &space) != 0) return std::nullopt;
  return std::uint64_t{space.f_bavail} * std::uint64_t{space.f_frsize};
}

}  // namespace oxbow
