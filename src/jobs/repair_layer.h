// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "jobs/check_layer.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow {

// What a repair may do besides mending what is stored twice. Thread safety: a value.
struct RepairOptions {
  bool dry_run = false;  // say what would be done, write nothing
  // State pages that are damaged in one slot, of which the other is to be taken, although it may be the older one.
  std::vector<std::uint64_t> accept_older = {};
  // Damaged state pages that are to be given up: their clusters become absent, and the base shows through.
  std::vector<std::uint64_t> drop = {};
  // Give up the records of the commit ring that lie behind a damaged one, and the damaged one.
  bool drop_ring = false;
  // Opens the layer for writing, as serving it does, and closes it: what an unclean end needs. The store is the
  // same one. Without it such a layer is left as it is.
  std::function<Result<void>()> recover = {};
};

// One thing that was done, or would be. Thread safety: a value.
struct RepairStep {
  std::string where;             // "superblock copy 1"
  std::string what;              // "written again from copy 0"
  std::vector<Range> lost = {};  // of the device, bytes: what changes by it for those who read
};

// Thread safety: a value.
struct RepairReport {
  CheckReport before;
  std::vector<RepairStep> steps;
  // What a check finds afterwards; of a dry run, what would be left.
  std::vector<Finding> left;
  // Why the layer was not recovered, if it had to be.
  std::optional<Error> not_recovered;

  [[nodiscard]] bool sound() const noexcept;  // nothing but notes is left
};

// Mends the metadata of a layer from what is stored twice or proven, in an order that leaves it no worse wherever it is
// cut off; never guesses. The store is writable and nobody else has it, but for a dry run. Errors: no layer, a page
// named in the options that isn't damaged or has no other slot (nothing is written then), or a failed write. Blocking.
[[nodiscard]] Result<RepairReport> repair_layer(Queue& queue, Store& layer, const RepairOptions& options);

}  // namespace oxbow
