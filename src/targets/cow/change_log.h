// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>

#include "formats/native/layout.h"
#include "os/fixed.h"
#include "oxbow/range.h"

namespace oxbow {

// Which ranges of a device have changed since the last flush, as long as they are few enough for a record of the
// commit ring; then it only knows that they are too many, and adding costs one load. A change is added after it was
// published and before it completes. Thread safety: from any thread.
class ChangeLog {
 public:
  using Ranges = Fixed<Range, native::k_ring_entries>;

  // `moved_bytes` of the range were written: 0 when it only became zeros.
  void add(Range range, std::uint64_t moved_bytes) noexcept;
  // Begins anew. Returns false when there was too much to remember; else all that was added is in `out`, in any
  // order. Whatever is added later changed its page's dirty flag before it finds the log begun anew.
  [[nodiscard]] bool take(Ranges& out) noexcept;

 private:
  std::mutex mutex_;
  Ranges ranges_;            // guarded by mutex_
  std::uint64_t moved_ = 0;  // guarded by mutex_
  std::atomic<bool> overflowed_{false};
};

}  // namespace oxbow
