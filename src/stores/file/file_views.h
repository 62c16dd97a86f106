// SPDX-License-Identifier: Apache-2.0
#pragma once

// A file's bytes as memory that the kernel may send from, while its page cache has them.
//
// - A mapping of the whole file, read-only and shared, made when something is first known to be in the cache.
//   It takes address space, and page tables for what is sent from it: when those may have grown to
//   k_most_regions everything is unmapped and forgotten once.
// - Only what is believed to be cached is handed out: from a mapping the kernel reads cold pages one by one
//   while the sender waits, a read fetches them together and in the background.
// - Nobody in this process touches the mapping: others can cut the file short, and then a touch is a SIGBUS,
//   while a system call answers EFAULT. The page where a file ends now reads as zeros behind its end, though,
//   so whoever sends asks cut_short() first.
// - Writes through the file and holes punched in it show in the mapping at once: it is the page cache itself.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <vector>

#include "os/mapping.h"
#include "oxbow/range.h"
#include "stores/file/warm_pages.h"

namespace oxbow {

// Thread safety: any thread, except grow(), which has it to itself.
class FileViews {
 public:
  static constexpr std::uint64_t k_most_regions = 32768;  // of 2 MiB: 64 GiB, and 128 MiB of page tables

  // `fd` is borrowed and not opened with O_DIRECT.
  FileViews(int fd, std::uint64_t size_bytes) noexcept : fd_(fd), size_bytes_(size_bytes) {}

  // The range went through the cache just now, by a read or by a write.
  void was_read(Range range) noexcept;
  void was_written(Range range) noexcept;
  // A hole is about to be made there.
  void forget(Range range) noexcept;
  // Lets go of all pages, so that the kernel can drop them.
  void drop() noexcept;
  // Views stay valid.
  void grow(std::uint64_t size_bytes) noexcept;

  // The bytes of the range when all of it is believed to be cached, else empty. Valid as long as this.
  [[nodiscard]] std::span<const std::byte> view(Range range) noexcept;
  // Whether the file is shorter now than it was. If so, there are no views any more.
  [[nodiscard]] bool cut_short() noexcept;

 private:
  enum class State : std::uint8_t { unopened, open, impossible };

  [[nodiscard]] bool open() noexcept;
  [[nodiscard]] bool map() noexcept;
  void note(Range range) noexcept;
  [[nodiscard]] bool still_cached(Range range) const noexcept;

  int fd_;
  std::uint64_t size_bytes_;
  std::atomic<State> state_{State::unopened};
  std::mutex opening_;
  bool in_memory_ = false;  // a tmpfs, which has no medium
  Mapping mapping_;
  std::vector<Mapping> outgrown_;  // kept for views
  WarmPages warm_;
};

}  // namespace oxbow
