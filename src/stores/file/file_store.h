// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "os/fd.h"
#include "os/file_identity.h"
#include "os/file_lock.h"
#include "os/iov.h"
#include "oxbow/error.h"
#include "stores/file/barrier.h"
#include "stores/file/description_pool.h"
#include "stores/file/file_space.h"
#include "stores/file/file_views.h"
#include "stores/file/reserve.h"
#include "stores/store.h"

namespace oxbow {

struct FileOptions {
  bool writable = false;
  bool direct = false;  // O_DIRECT: past the page cache
  // With `direct`: durable writes block their caller, who may wait, and are never pending.
  bool durable_blocks = false;
  std::uint64_t reserve_bytes = 0;  // of a writable file: what is to stay free on its file system
  LockMode lock = LockMode::none;   // `exclusive` needs `writable`
};

// A regular file or block device, by default through the page cache.
//
// Reads answer from the page cache at once and are pending only for what has to come from the medium (without
// an io_uring they block). Writes, zeros and discards are done when they return; sync blocks its caller (it
// is meant for a thread that may). Room is given back with FALLOC_FL_PUNCH_HOLE where the file system can. A
// discard that the medium doesn't support succeeds and changes nothing; an allocate answers EOPNOTSUPP.
// Writing to a store that was opened read-only answers EROFS. Thread safety: as Store; grow() is a structure
// change and has the store to itself.
class FileStore : public Store {
 public:
  // Opens `path`. The error names a missing file, a directory, what is neither file nor block device, a
  // refused permission, a file system without direct I/O, and a lock held elsewhere ("it is in use by another
  // process"). A writable block device that is to be locked exclusively is also refused while mounted
  // (O_EXCL).
  [[nodiscard]] static Result<std::shared_ptr<FileStore>> open(const std::string& path,
                                                               const FileOptions& options);
  ~FileStore() override = default;

  // Converts this store's lock on the file; on an error the lock held before stays.
  [[nodiscard]] Result<void> lock_exclusive() { return lock(LockMode::exclusive); }
  [[nodiscard]] Result<void> lock_shared() { return lock(LockMode::shared); }
  [[nodiscard]] LockMode lock_mode() const noexcept { return lock_.load(std::memory_order_relaxed); }

  // As it was when the store was opened.
  [[nodiscard]] const FileIdentity& identity() const noexcept { return identity_; }
  // As it is now.
  [[nodiscard]] Result<FileIdentity> current_identity() const;
  // The same, and no power loss takes it back: unlike sync() of a writable store it includes the modification time.
  [[nodiscard]] Result<FileIdentity> durable_identity();
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  [[nodiscard]] virtual bool direct() const noexcept { return false; }
  // Forgets what the page cache holds of the file, so that what is read is what the medium has: after a failed barrier
  // Linux keeps pages that never reached it and calls them clean. Writes what still has to be written first, and takes
  // what errors there were. Views stay valid. Blocks.
  void drop_cache() noexcept;
  // For sending from it; borrowed, as long as the store. -1 with direct I/O.
  [[nodiscard]] int descriptor() const noexcept { return direct() ? -1 : fd_.get(); }

  Progress read(Io& io, std::uint64_t at, std::span<std::byte> out, ReadMode mode) noexcept override;
  Progress write(Io& io, std::uint64_t at, WriteMode mode) noexcept override;
  Progress zero(Io& io, Range range, ZeroMode mode) noexcept override;
  Progress discard(Io& io, Range range) noexcept override;
  Progress sync(Io& io) noexcept override;
  [[nodiscard]] IoStatus written_back() noexcept override;
  Progress allocate(Io& io, Range range) noexcept override;
  Progress grow(Io& io, std::uint64_t size) noexcept override;
  // The file may have become longer by somebody else's doing: from now on the store is as long as it is. A structure
  // change.
  virtual Progress follow_growth(Io& io) noexcept;
  std::uint64_t extents(Range range, Extents& out) noexcept override;
  // Of what is believed to be in the page cache, else empty (stores/file/file_views.h).
  std::span<const std::byte> view(Range range) noexcept override { return views_.view(range); }
  [[nodiscard]] bool views_may_fault() const noexcept override { return true; }
  // There are no views any more afterwards.
  [[nodiscard]] bool cut_short() noexcept override { return views_.cut_short(); }
  std::span<std::byte> memory(Range /*range*/) noexcept override { return {}; }
  [[nodiscard]] bool zeroes_fast(ZeroMode mode) noexcept override { return space_.zeroes_fast(mode, size()); }
  // Into the page cache; nothing with direct I/O.
  void prefetch(Range range) noexcept override;
  // Holes need room, and only those; so does all that is allocated but was never written.
  [[nodiscard]] IoStatus room(Range range) noexcept override;
  [[nodiscard]] std::optional<std::uint64_t> free_bytes() const noexcept override;
  [[nodiscard]] std::uint64_t size() const noexcept override { return size_.load(std::memory_order_acquire); }
  [[nodiscard]] bool writable() const noexcept override { return options_.writable; }
  [[nodiscard]] std::string describe() const override { return path_; }
  [[nodiscard]] StoreFacts facts() const override;

 protected:
  FileStore(UniqueFd fd, std::string path, const FileOptions& options, const FileIdentity& identity,
            std::uint32_t grain_bytes);
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] FileSpace& space() noexcept { return space_; }

 private:
  [[nodiscard]] static Result<std::shared_ptr<FileStore>> adopt(UniqueFd fd, const std::string& path,
                                                                const FileOptions& options);
  [[nodiscard]] static Result<std::shared_ptr<FileStore>> make_direct(UniqueFd fd, const std::string& path,
                                                                      const FileOptions& options,
                                                                      const FileIdentity& identity);
  [[nodiscard]] Result<void> lock(LockMode mode);
  [[nodiscard]] IoStatus write_durably(std::uint64_t at, IovList& iov) noexcept;
  // fdatasync or fsync.
  [[nodiscard]] IoStatus sync_with(int (*call)(int)) noexcept;
  [[nodiscard]] static IoStatus write_durably(int fd, std::uint64_t at, IovList& iov) noexcept;
  // From `at` on, alike: fills `piece` and returns true, or false when the file doesn't tell.
  [[nodiscard]] bool find_extent(std::uint64_t at, std::uint64_t end, Extent& piece) noexcept;

  UniqueFd fd_;
  std::string path_;           // as it was given, for errors
  std::string absolute_path_;  // for what is shown later
  FileOptions options_;
  FileIdentity identity_;
  std::atomic<std::uint64_t> size_;
  std::atomic<LockMode> lock_{LockMode::none};
  std::atomic<bool> no_nowait_{false};  // the file system doesn't know RWF_NOWAIT
  Barrier barrier_;                     // of fd_
  DescriptionPool for_durable_;         // each durable write has one of its own
  FileSpace space_;
  Reserve reserve_;
  FileViews views_;
};

}  // namespace oxbow
