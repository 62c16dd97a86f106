// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "os/fd.h"
#include "os/iov.h"
#include "os/mapping.h"
#include "oxbow/error.h"
#include "stores/ram/page_budget.h"
#include "stores/ram/page_map.h"
#include "stores/store.h"

namespace oxbow {

struct RamOptions {
  std::uint64_t size_bytes = 0;
  std::uint64_t budget_bytes = 0;  // at most so much memory for contents, in whole pages; 0: no limit
  bool preallocate = false;        // all memory up front; it is never given back
  std::shared_ptr<PageBudget> shared =
      nullptr;  // a limit for several together, besides the own one; may be null
};

// Bytes in memory, sparse: a 4 KiB page takes memory from its first write until it is discarded. Every
// operation is done when it returns; sync does nothing, and nothing outlives the store. A write that would
// exceed the budget answers ENOSPC and changes nothing.
//
// The memory is a memfd, mapped whole. A bit per page says whether the page is present; bits change under the
// lock of their word's stripe:
//   first write  lock; charge; zero what the write leaves uncovered (a raced overwrite may have left bytes); copy;
//                set bit
//   overwrite    bit seen set: copy, no lock; then look again
//   discard      lock; clear bit; punch the page; give the charge back
// An overwrite (or read) that a discard overtakes makes the kernel bring the punched page back, so whoever
// finds the bit clear after its copy takes the lock and, if the bit is still clear, punches again. It can't
// miss that: a copy that brings a page back traps into the kernel, which orders it and all that follows after
// the clearing.
//
// Thread safety: as Store, with no data race of its own; grow(), resize(), clear() and set_budget() are structure
// changes and have the store to themselves.
class RamStore final : public Store {
 public:
  // The error says what the system refused: the memory, or a mapping of that size.
  [[nodiscard]] static Result<std::shared_ptr<RamStore>> create(const RamOptions& options);
  ~RamStore() override = default;

  Progress read(Io& io, std::uint64_t at, std::span<std::byte> out, ReadMode mode) noexcept override;
  Progress write(Io& io, std::uint64_t at, WriteMode mode) noexcept override;
  Progress zero(Io& io, Range range, ZeroMode mode) noexcept override;
  Progress discard(Io& io, Range range) noexcept override;
  Progress sync(Io& /*io*/) noexcept override { return Progress::done(); }
  Progress allocate(Io& io, Range range) noexcept override;
  // Existing views stay valid.
  Progress grow(Io& io, std::uint64_t size) noexcept override;
  // grow() or its opposite: what is cut off gives its memory back, of a preallocated store too. Existing views stay
  // mapped; of what is cut off they show zeros. Returns 0 or the errno value, and then the size is what it was.
  [[nodiscard]] int resize(std::uint64_t size) noexcept;
  // All of it reads as zeros and takes no memory, unless it is preallocated.
  [[nodiscard]] Progress clear(Io& io) noexcept;
  // In whole pages, not below what is in use.
  void set_budget(std::uint64_t bytes) noexcept { budget_.set_limit(bytes / k_ram_page_bytes); }
  std::uint64_t extents(Range range, Extents& out) noexcept override;
  // Of present pages only, else empty. One that is used after its range was discarded shows zeros, and what
  // it makes the kernel bring back stays uncounted until the page is next written.
  std::span<const std::byte> view(Range range) noexcept override { return memory(range); }
  std::span<std::byte> memory(Range range) noexcept override;
  [[nodiscard]] bool zeroes_fast(ZeroMode mode) noexcept override {
    return mode == ZeroMode::may_punch && !options_.preallocate;
  }
  [[nodiscard]] bool in_memory() const noexcept override { return true; }
  [[nodiscard]] std::uint64_t size() const noexcept override { return size_.load(std::memory_order_relaxed); }
  [[nodiscard]] bool preallocated() const noexcept { return options_.preallocate; }
  [[nodiscard]] bool writable() const noexcept override { return true; }
  [[nodiscard]] std::string describe() const override;
  [[nodiscard]] std::optional<std::uint64_t> free_bytes() const noexcept override;
  [[nodiscard]] StoreFacts facts() const override;

  // Memory taken by contents, in bytes.
  [[nodiscard]] std::uint64_t allocated_bytes() const noexcept { return budget_.used() * k_ram_page_bytes; }

 private:
  // Each stripe on a cache line of its own.
  struct alignas(64) Stripe {
    std::mutex mutex;
  };
  static constexpr std::size_t k_stripes = 64;
  // One extents() call looks at no more than this, so that it returns soon however sparse the store is.
  static constexpr std::uint64_t k_scan_pages = (std::uint64_t{16} << 30) / k_ram_page_bytes;

  explicit RamStore(const RamOptions& options) noexcept;
  [[nodiscard]] Result<void> map();
  [[nodiscard]] int map_memory(std::uint64_t size) noexcept;
  [[nodiscard]] Result<void> preallocate();
  // Allocates whole pages that are absent. Returns 0 or the errno value.
  [[nodiscard]] int take_pages(Range range) noexcept;
  [[nodiscard]] int make_larger(std::uint64_t size) noexcept;

  [[nodiscard]] std::mutex& stripe(std::uint64_t group) noexcept { return stripes_[group % k_stripes].mutex; }
  [[nodiscard]] std::byte* at(std::uint64_t offset) const noexcept { return memory_.data() + offset; }
  [[nodiscard]] std::byte* page(std::uint64_t group, unsigned index) const noexcept {
    return at((group * k_ram_group_pages + index) * k_ram_page_bytes);
  }

  [[nodiscard]] IoStatus fill(Range range, Payload& payload) noexcept;
  [[nodiscard]] bool fill_absent(const GroupPiece& piece, Payload& payload,
                                 PageReservation& reservation) noexcept;
  void zero_uncovered(const GroupPiece& piece, std::uint64_t absent) noexcept;
  void read_piece(const GroupPiece& piece, std::byte* out) noexcept;
  void drop(const GroupPiece& piece) noexcept;
  void drop_pages(std::uint64_t group, std::uint64_t mask) noexcept;
  void zero_edge(Range edge, std::uint64_t present, std::uint64_t group) noexcept;
  [[nodiscard]] bool punch(std::uint64_t group, PageRun run) noexcept;
  // After a copy from or to pages that were present: punches those again that were discarded meanwhile.
  void recheck(const GroupPiece& piece, std::uint64_t copied) noexcept;

  RamOptions options_;
  std::atomic<std::uint64_t> size_;  // facts() is asked for at any time
  UniqueFd memfd_;
  Mapping memory_;
  std::vector<Mapping> outgrown_;  // earlier, shorter mappings of the same memory, kept for views
  PageMap pages_;
  PageBudget budget_;
  std::array<Stripe, k_stripes> stripes_;
};

}  // namespace oxbow
