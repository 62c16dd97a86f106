// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>

namespace oxbow {

// How many pages may be in use, and how many are. Thread safety: any thread, except the constructor; set_limit() has no
// charge() beside it.
class PageBudget {
 public:
  explicit PageBudget(std::uint64_t limit_pages) noexcept : limit_(limit_pages) {}
  static constexpr std::uint64_t k_unlimited = std::numeric_limits<std::uint64_t>::max();

  // Takes all of them or, answering false, none.
  [[nodiscard]] bool charge(std::uint64_t pages) noexcept {
    const std::uint64_t most = limit();
    std::uint64_t used = used_.load(std::memory_order_relaxed);
    do {
      if (pages > most - used) return false;
    } while (!used_.compare_exchange_weak(used, used + pages, std::memory_order_relaxed));
    return true;
  }
  void give_back(std::uint64_t pages) noexcept { used_.fetch_sub(pages, std::memory_order_relaxed); }
  // Never less than what is in use.
  void set_limit(std::uint64_t pages) noexcept {
    limit_.store(std::max(pages, used()), std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t limit() const noexcept { return limit_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t used() const noexcept { return used_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> limit_;
  std::atomic<std::uint64_t> used_{0};
};

// Pages charged ahead for one operation; those it doesn't use go back at its end. Thread safety: one thread.
class PageReservation {
 public:
  explicit PageReservation(PageBudget& budget) noexcept : budget_(budget) {}
  PageReservation(const PageReservation&) = delete;
  PageReservation& operator=(const PageReservation&) = delete;
  PageReservation(PageReservation&&) = delete;
  PageReservation& operator=(PageReservation&&) = delete;
  ~PageReservation() {
    if (spare_ > 0) budget_.give_back(spare_);
  }

  // Makes sure that `pages` are at hand.
  [[nodiscard]] bool have(std::uint64_t pages) noexcept {
    if (pages <= spare_) return true;
    if (!budget_.charge(pages - spare_)) return false;
    spare_ = pages;
    return true;
  }
  void use(std::uint64_t pages) noexcept { spare_ -= pages; }

 private:
  PageBudget& budget_;
  std::uint64_t spare_ = 0;
};

}  // namespace oxbow
