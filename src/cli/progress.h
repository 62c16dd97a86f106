// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <unistd.h>

#include <cstdint>
#include <functional>
#include <string>

namespace oxbow {

// Shows on a terminal how far a long command is: one line on standard error, rewritten in place a few times a second
// and taken away at the end. Does nothing where standard error is no terminal. Thread safety: one thread at a time.
class ProgressBar {
 public:
  // `doing` is a word for what takes so long: "packing". `descriptor` is borrowed; `now_ns` is a clock that never goes
  // backwards, the system's where it is empty.
  explicit ProgressBar(std::string doing, int descriptor = STDERR_FILENO,
                       std::function<std::int64_t()> now_ns = {});
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;
  ProgressBar(ProgressBar&&) = delete;
  ProgressBar& operator=(ProgressBar&&) = delete;
  ~ProgressBar() { clear(); }

  // Bytes. A `total` of 0 is one that isn't known. What was done when this is called first counts for the share but
  // not for the rate.
  void show(std::uint64_t done, std::uint64_t total);
  // Takes the line away: before anything else is printed. A later show() brings it back.
  void clear() noexcept;
  // What jobs are given; borrows this.
  [[nodiscard]] std::function<void(std::uint64_t done, std::uint64_t total)> feed() {
    return [this](std::uint64_t done, std::uint64_t total) { show(done, total); };
  }

 private:
  [[nodiscard]] std::string text(std::uint64_t done, std::uint64_t total, std::int64_t elapsed_ns) const;
  void put(const std::string& line) noexcept;

  std::string doing_;
  int descriptor_;
  std::function<std::int64_t()> now_ns_;
  bool enabled_;
  bool begun_ = false;
  std::int64_t began_ns_ = 0;
  std::int64_t shown_ns_ = 0;
  std::uint64_t first_done_ = 0;
  std::size_t columns_shown_ = 0;  // of the line that stands there
};

}  // namespace oxbow
