// SPDX-License-Identifier: Apache-2.0
#pragma once

// What is known of each state page besides its words: whether it was read, whether it has to be written, and
// where.
//
//   unknown ──read──► loaded ──a cluster changes──► dirty ──capture──► in flight ──flushed──► loaded
//                └──► damaged (its range fails with EIO)
//
// A page that changes while it is in flight is dirty and in flight. capture sets "in flight" BEFORE it clears
// "dirty", so that whoever finds neither set knows that the page's durable slot says what memory says.

#include <atomic>
#include <cstdint>
#include <vector>

namespace oxbow {

// Thread safety: from any thread; take_dirty() and written() from the flush worker alone.
class PageTable {
 public:
  explicit PageTable(std::uint64_t pages) : flags_(pages), dirty_((pages + 63) / 64) {}

  [[nodiscard]] std::uint64_t size() const noexcept { return flags_.size(); }
  [[nodiscard]] bool loaded(std::uint64_t page) const noexcept { return has(page, k_loaded); }
  [[nodiscard]] bool damaged(std::uint64_t page) const noexcept { return has(page, k_damaged); }
  // Both slots have room on the disk.
  [[nodiscard]] bool has_room(std::uint64_t page) const noexcept { return has(page, k_room); }
  // Neither changed nor being written since its last durable version.
  [[nodiscard]] bool settled(std::uint64_t page) const noexcept {
    return !is_dirty(page) && !has(page, k_in_flight);
  }
  [[nodiscard]] bool is_dirty(std::uint64_t page) const noexcept {
    return (dirty_[page / 64].load(std::memory_order_acquire) >> (page % 64) & 1) != 0;
  }
  // The slot that the next version goes to: the one that doesn't hold the last durable version.
  [[nodiscard]] std::uint32_t next_slot(std::uint64_t page) const noexcept {
    return has(page, k_next_slot) ? 1 : 0;
  }

  void set_loaded(std::uint64_t page, std::uint32_t next_slot) noexcept {
    flags_[page].fetch_or(static_cast<std::uint8_t>(k_loaded | (next_slot != 0 ? k_next_slot : 0)),
                          std::memory_order_acq_rel);
  }
  void set_damaged(std::uint64_t page) noexcept {
    flags_[page].fetch_or(k_loaded | k_damaged, std::memory_order_acq_rel);
  }
  void set_room(std::uint64_t page) noexcept { flags_[page].fetch_or(k_room, std::memory_order_acq_rel); }
  // After the page's words changed, before the change completes.
  void set_dirty(std::uint64_t page) noexcept {
    dirty_[page / 64].fetch_or(std::uint64_t{1} << (page % 64), std::memory_order_seq_cst);
  }
  void clear_dirty(std::uint64_t page) noexcept {
    dirty_[page / 64].fetch_and(~(std::uint64_t{1} << (page % 64)), std::memory_order_acq_rel);
  }

  // Marks a dirty page in flight and no longer dirty.
  void take(std::uint32_t page, std::vector<std::uint32_t>& taken) {
    flags_[page].fetch_or(k_in_flight, std::memory_order_acq_rel);
    clear_dirty(page);
    taken.push_back(page);
  }
  // Appends dirty pages to `taken`, from page `from` on and until it has `limit`, each marked in flight and, with
  // `clear`, no longer dirty. Returns whether there are more behind them; then `from` is the next one.
  bool take_dirty(std::size_t limit, bool clear, std::uint64_t& from, std::vector<std::uint32_t>& taken);
  // The version in flight is durable.
  void written(std::uint64_t page) noexcept {
    flags_[page].fetch_xor(k_next_slot, std::memory_order_acq_rel);
    flags_[page].fetch_and(static_cast<std::uint8_t>(~k_in_flight), std::memory_order_acq_rel);
  }

 private:
  static constexpr std::uint8_t k_loaded = 1;
  static constexpr std::uint8_t k_damaged = 2;
  static constexpr std::uint8_t k_room = 4;
  static constexpr std::uint8_t k_next_slot = 8;
  static constexpr std::uint8_t k_in_flight = 16;

  [[nodiscard]] bool has(std::uint64_t page, std::uint8_t flag) const noexcept {
    return (flags_[page].load(std::memory_order_acquire) & flag) != 0;
  }

  std::vector<std::atomic<std::uint8_t>> flags_;
  std::vector<std::atomic<std::uint64_t>> dirty_;  // one bit per page
};

}  // namespace oxbow
