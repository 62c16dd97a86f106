// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace oxbow {

// What becomes of a change that lacks room (ENOSPC, EDQUOT).
enum class OnFull : std::uint8_t {
  pause,  // it waits, and is tried again when there may be room; flushes wait meanwhile
  error,  // it fails
};

// How a device waits for room. Thread safety: a value.
struct RoomStatus {
  std::chrono::system_clock::time_point since;  // when the first of them found none
  int reason = 0;                               // the errno value that it met
  std::size_t changes = 0;                      // that wait for room, at least one
  std::size_t flushes = 0;                      // that wait for them, durable changes included
};

}  // namespace oxbow
