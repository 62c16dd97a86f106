// SPDX-License-Identifier: Apache-2.0
#include "cli/progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>

#include "cli/size.h"

namespace oxbow {
namespace {

constexpr std::int64_t k_ns_per_s = 1'000'000'000;
constexpr std::int64_t k_between_ns = k_ns_per_s / 10;
// Commands that are over in a moment show nothing.
constexpr std::int64_t k_quiet_ns = k_ns_per_s / 2;
constexpr std::size_t k_usual_columns = 80;

std::int64_t steady_ns() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

std::size_t columns_of(int descriptor) noexcept {
  winsize size{};
  if (::ioctl(descriptor, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return k_usual_columns;
  return size.ws_col;
}

std::string duration_text(std::uint64_t seconds) {
  if (seconds < 60) return fmt::format("{} s", seconds);
  if (seconds < 3600) return fmt::format("{} min {:02} s", seconds / 60, seconds % 60);
  if (seconds < 100 * 3600) return fmt::format("{} h {:02} min", seconds / 3600, seconds / 60 % 60);
  return fmt::format("{} days", seconds / (24 * std::uint64_t{3600}));
}

}  // namespace

ProgressBar::ProgressBar(std::string doing, int descriptor, std::function<std::int64_t()> now_ns)
    : doing_(std::move(doing)),
      descriptor_(descriptor),
      now_ns_(now_ns ? std::move(now_ns) : steady_ns),
      enabled_(::isatty(descriptor) == 1) {}

std::string ProgressBar::text(std::uint64_t done, std::uint64_t total, std::int64_t elapsed_ns) const {
  const double seconds = static_cast<double>(elapsed_ns) / static_cast<double>(k_ns_per_s);
  const double rate = static_cast<double>(done - std::min(done, first_done_)) / seconds;
  std::string line = doing_ + "  ";
  if (total != 0) {
    const double share = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    line += fmt::format("{:3.0f}%  {} of {}", std::floor(share * 100), format_size(done), format_size(total));
  } else {
    line += format_size(done);
  }
  line += fmt::format("  {}/s", format_size(static_cast<std::uint64_t>(rate)));
  if (total > done && rate >= 1) {
    const double left = std::min(static_cast<double>(total - done) / rate, 1e12);
    line += fmt::format("  {} left", duration_text(static_cast<std::uint64_t>(std::ceil(left))));
  }
  return line;
}

void ProgressBar::show(std::uint64_t done, std::uint64_t total) {
  if (!enabled_) return;
  const std::int64_t now = now_ns_();
  if (!begun_) {
    begun_ = true;
    began_ns_ = now;
    first_done_ = done;
    shown_ns_ = now + k_quiet_ns - k_between_ns;
    return;
  }
  if (now - shown_ns_ < k_between_ns) return;
  shown_ns_ = now;
  std::string line = text(done, total, now - began_ns_);
  // A line that fills the screen's last column would wrap, and could not be rewritten any more.
  line.resize(std::min(line.size(), columns_of(descriptor_) - 1));
  const std::size_t columns = line.size();
  if (columns < columns_shown_) line.append(columns_shown_ - columns, ' ');
  put("\r" + line);
  columns_shown_ = columns;
}

void ProgressBar::clear() noexcept {
  if (columns_shown_ == 0) return;
  put("\r" + std::string(columns_shown_, ' ') + "\r");
  columns_shown_ = 0;
}

// A terminal that is gone ends the showing and nothing else.
void ProgressBar::put(const std::string& line) noexcept {
  for (std::size_t at = 0; at < line.size();) {
    const ssize_t written = ::write(descriptor_, line.data() + at, line.size() - at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      enabled_ = false;
      return;
    }
    at += static_cast<std::size_t>(written);
  }
}

}  // namespace oxbow
