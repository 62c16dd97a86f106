// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace oxbow {

// What a process writes down of itself for others to read. Thread safety: values.
struct ProcessInfo {
  std::uint64_t pid = 0;
  std::string host;
  std::string command;  // its arguments, joined by blanks
};
[[nodiscard]] ProcessInfo this_process();
// Whether a process of that number runs on this host now.
[[nodiscard]] bool process_runs(std::uint64_t pid) noexcept;

// Nanoseconds since 1970.
[[nodiscard]] std::int64_t now_ns() noexcept;

// Fills `out` from the kernel's random source. Returns false when there is none.
[[nodiscard]] bool fill_random(std::span<std::byte> out) noexcept;

}  // namespace oxbow
