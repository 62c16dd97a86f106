// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "stores/store.h"

namespace oxbow {

// The parts of a range of a store that are no holes, in order. The store is borrowed, and nothing there changes between
// a hole and data meanwhile. Thread safety: none.
class DataPieces {
 public:
  DataPieces(Store& store, Range range) noexcept : store_(store), rest_(range) {}

  // The next one; empty at the end.
  [[nodiscard]] Range next() noexcept {
    while (!rest_.empty()) {
      if (next_ == extents_.size()) {
        extents_.clear();
        next_ = 0;
        (void)store_.extents(rest_, extents_);
      }
      const Extent& extent = extents_[next_++];
      const Range piece = rest_.prefix(extent.length);
      rest_ = rest_.without_prefix(extent.length);
      if (extent.kind != Kind::zero) return piece;
    }
    return {rest_.offset, 0};
  }

 private:
  Store& store_;
  Range rest_;
  Extents extents_;
  std::size_t next_ = 0;
};

}  // namespace oxbow
