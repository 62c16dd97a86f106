// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace oxbow {

enum class LogLevel : std::uint8_t { debug, info, warning, error };

// Where events worth a line go; what becomes of the lines is the program's business, not of those who write
// them. Thread safety: write() from any thread.
class Log {
 public:
  Log() noexcept = default;
  virtual ~Log() = default;
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;
  Log(Log&&) = delete;
  Log& operator=(Log&&) = delete;

  // `topic` is a short constant ("nbd.client"); lines of one topic share a limit on how many come through.
  // `line` is a sentence without a final full stop or line feed.
  virtual void write(LogLevel level, std::string_view topic, std::string_view line) noexcept = 0;
};

}  // namespace oxbow
