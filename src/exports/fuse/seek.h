// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "oxbow/range.h"
#include "stores/extent.h"

namespace oxbow::fuse {

enum class SeekFor : std::uint8_t { data, hole };

// Where in `range`, whose beginning the extents describe, the first of that kind is. Without one there, nothing, and
// `range` is what comes after the extents. What can't be read counts as data.
[[nodiscard]] inline std::optional<std::uint64_t> find(const Extents& extents, SeekFor wanted,
                                                       Range& range) noexcept {
  for (const Extent& each : extents) {
    const bool hole = each.kind == Kind::zero;
    if (hole == (wanted == SeekFor::hole)) return range.offset;
    range = range.without_prefix(each.length);
  }
  return std::nullopt;
}

}  // namespace oxbow::fuse
