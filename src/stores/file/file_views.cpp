// SPDX-License-Identifier: Apache-2.0
#include "stores/file/file_views.h"

#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <new>
#include <utility>

#include "os/transfer.h"

namespace oxbow {
namespace {

// Whether the byte is in the page cache; an error other than EAGAIN says something else.
IoStatus peek(int fd, std::uint64_t at) noexcept {
  std::array<std::byte, 1> byte;
  return read_at(fd, at, byte, RWF_NOWAIT).status;
}

bool on_tmpfs(int fd) noexcept {
  struct statfs info{};
  return ::fstatfs(fd, &info) == 0 && info.f_type == TMPFS_MAGIC;
}

bool is_data(int fd, Range range) noexcept {
  const auto at = static_cast<off_t>(range.offset);
  return ::lseek(fd, at, SEEK_DATA) == at && ::lseek(fd, at, SEEK_HOLE) >= static_cast<off_t>(range.end());
}

}  // namespace

// Where the kernel can't say what is cached there are no views: then a mapping may be another copy, too.
bool FileViews::map() noexcept {
  in_memory_ = on_tmpfs(fd_);
  if (size_bytes_ == 0) return false;
  if (!in_memory_ && peek(fd_, 0).error_number() == EOPNOTSUPP) return false;
  std::expected<Mapping, int> mapping = Mapping::shared_for_reading(fd_, size_bytes_);
  if (!mapping || warm_.init(size_bytes_) != 0) return false;
  mapping_ = std::move(*mapping);
  // A cold page that is met all the same shall not bring others with it.
  (void)::madvise(mapping_.data(), mapping_.size(), MADV_RANDOM);
  return true;
}

bool FileViews::open() noexcept {
  State state = state_.load(std::memory_order_acquire);
  if (state == State::unopened) {
    const std::scoped_lock lock(opening_);
    state = state_.load(std::memory_order_relaxed);
    if (state == State::unopened) {
      state = map() ? State::open : State::impossible;
      state_.store(state, std::memory_order_release);
    }
  }
  return state == State::open;
}

void FileViews::was_read(Range range) noexcept {
  if (range.empty() || !open() || warm_.warm(range)) return;
  // A hole of a tmpfs that is touched through a mapping takes memory for good.
  if (in_memory_ && !is_data(fd_, range)) return;
  note(range);
}

void FileViews::was_written(Range range) noexcept {
  if (!range.empty() && open()) note(range);
}

void FileViews::note(Range range) noexcept {
  warm_.note(range);
  if (warm_.regions() > k_most_regions) drop();
}

void FileViews::forget(Range range) noexcept {
  if (state_.load(std::memory_order_acquire) == State::open) warm_.forget(range);
}

void FileViews::drop() noexcept {
  if (state_.load(std::memory_order_acquire) != State::open) return;
  warm_.forget_all();
  (void)::madvise(mapping_.data(), mapping_.size(), MADV_DONTNEED);
}

void FileViews::grow(std::uint64_t size_bytes) noexcept {
  size_bytes_ = size_bytes;
  State next = State::unopened;
  if (state_.load(std::memory_order_relaxed) == State::open) {
    try {
      outgrown_.emplace_back();
      std::swap(outgrown_.back(), mapping_);
    } catch (const std::bad_alloc&) {
      next = State::impossible;  // the mapping stays where it is, for the views that are about
    }
  }
  state_.store(next, std::memory_order_relaxed);
}

bool FileViews::cut_short() noexcept {
  const bool cut = ::lseek(fd_, 0, SEEK_END) < static_cast<off_t>(size_bytes_);
  if (cut) state_.store(State::impossible, std::memory_order_release);
  return cut;
}

bool FileViews::still_cached(Range range) const noexcept {
  for (std::uint64_t at = range.offset; at < range.end(); at += WarmPages::k_bytes_per_test) {
    if (!peek(fd_, at).ok()) return false;
  }
  return true;
}

std::span<const std::byte> FileViews::view(Range range) noexcept {
  if (state_.load(std::memory_order_acquire) != State::open || !warm_.warm(range)) return {};
  if (!in_memory_ && warm_.due(range.length) && !still_cached(range)) {
    warm_.forget_around(range);
    return {};
  }
  return {mapping_.data() + range.offset, range.length};
}

}  // namespace oxbow
