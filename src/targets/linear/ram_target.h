// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "targets/linear/linear_target.h"

namespace oxbow {

// A RAM disk: all of a store in memory. No table can name it, so that a line that is printed never means a file.
// Thread safety: as every Target; immutable.
class RamTarget final : public LinearTarget {
 public:
  RamTarget(std::shared_ptr<Store> store, bool writable) noexcept
      : LinearTarget(store, "ram", Range{0, store->size()}, writable) {}
  [[nodiscard]] TargetStatus status() const override { return {"ram", "", ""}; }
};

}  // namespace oxbow
