// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>

#include "os/log.h"

namespace oxbow::control {

enum class LogFormat : std::uint8_t {
  human,  // "2026-11-20T13:05:34.123Z warning nbd.client: the line"
  json,  // {"time":…,"level":…,"topic":…,"message":…}, one object per line; suppressed lines add "suppressed"
};

// Writes lines to standard error, through spdlog, and keeps one topic from drowning the others: each may write a
// burst, and then only so many lines per second; what comes beyond that is counted, and the count is told with the
// topic's next line. Errors are never held back. A line that cannot be written is lost. Thread safety: any thread.
class LogSink final : public Log {
 public:
  using Clock = std::chrono::system_clock;
  struct Options {
    LogFormat format = LogFormat::human;
    LogLevel level = LogLevel::info;  // lines below it are dropped, and not counted
    unsigned burst = 20;              // lines
    unsigned per_second = 5;          // lines, at least 1
    // Instead of standard error and the clock, for tests: takes lines without their line feed.
    std::function<void(std::string_view line)> output = {};
    std::function<Clock::time_point()> now = {};
  };
  explicit LogSink(Options options);
  ~LogSink() override;

  void write(LogLevel level, std::string_view topic, std::string_view line) noexcept override;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

// "debug", "info", "warning" or "error".
[[nodiscard]] std::string_view name_of(LogLevel level) noexcept;

}  // namespace oxbow::control
