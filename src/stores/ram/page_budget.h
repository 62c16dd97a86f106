// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <utility>

namespace oxbow {

// How many pages may be in use, and how many are; what several share counts there as well. Thread safety: any thread,
// except the constructor and destructor; set_limit() has no charge() beside it.
class PageBudget {
 public:
  // `shared` may be null.
  explicit PageBudget(std::uint64_t limit_pages, std::shared_ptr<PageBudget> shared = nullptr) noexcept
      : limit_(limit_pages), shared_(std::move(shared)) {}
  ~PageBudget() {
    if (shared_ != nullptr) shared_->give_back(used());
  }
  PageBudget(const PageBudget&) = delete;
  PageBudget& operator=(const PageBudget&) = delete;
  PageBudget(PageBudget&&) = delete;
  PageBudget& operator=(PageBudget&&) = delete;
  static constexpr std::uint64_t k_unlimited = std::numeric_limits<std::uint64_t>::max();

  // Takes all of them or, answering false, none.
  [[nodiscard]] bool charge(std::uint64_t pages) noexcept {
    if (shared_ != nullptr && !shared_->charge(pages)) return false;
    const std::uint64_t most = limit();
    std::uint64_t used = used_.load(std::memory_order_relaxed);
    do {
      if (pages > most - used) {
        if (shared_ != nullptr) shared_->give_back(pages);
        return false;
      }
    } while (!used_.compare_exchange_weak(used, used + pages, std::memory_order_relaxed));
    return true;
  }
  void give_back(std::uint64_t pages) noexcept {
    used_.fetch_sub(pages, std::memory_order_relaxed);
    if (shared_ != nullptr) shared_->give_back(pages);
  }
  // Never less than what is in use.
  void set_limit(std::uint64_t pages) noexcept {
    limit_.store(std::max(pages, used()), std::memory_order_relaxed);
  }
  [[nodiscard]] std::uint64_t limit() const noexcept { return limit_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t used() const noexcept { return used_.load(std::memory_order_relaxed); }
  // How many more may be in use.
  [[nodiscard]] std::uint64_t left() const noexcept {
    const std::uint64_t own = limit() - used();
    return shared_ == nullptr ? own : std::min(own, shared_->left());
  }

 private:
  std::atomic<std::uint64_t> limit_;
  const std::shared_ptr<PageBudget> shared_;
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
