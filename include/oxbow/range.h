// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

namespace oxbow {

inline constexpr std::uint64_t k_sector_bytes = 512;  // the unit of tables, as in device-mapper

// `length` bytes from byte `offset` on. Both in bytes. Whoever accepts a range from outside calls fits() before
// end(), which may not wrap. Thread safety: a value.
struct Range {
  std::uint64_t offset = 0;
  std::uint64_t length = 0;

  [[nodiscard]] constexpr std::uint64_t end() const noexcept { return offset + length; }
  [[nodiscard]] constexpr bool empty() const noexcept { return length == 0; }
  // Whether the range lies within [0, size), without wrapping.
  [[nodiscard]] constexpr bool fits(std::uint64_t size) const noexcept {
    return offset <= size && length <= size - offset;
  }
  // The first `bytes` of the range, or all of it.
  [[nodiscard]] constexpr Range prefix(std::uint64_t bytes) const noexcept {
    return {offset, std::min(length, bytes)};
  }
  // What is left when the first `bytes` (at most length) are taken away.
  [[nodiscard]] constexpr Range without_prefix(std::uint64_t bytes) const noexcept {
    return {offset + bytes, length - bytes};
  }
  friend constexpr bool operator==(const Range&, const Range&) noexcept = default;
};

}  // namespace oxbow
