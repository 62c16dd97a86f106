// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "formats/cowloop/head.h"
#include "jobs/hash_base.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "oxbow/range.h"
#include "stores/store.h"

namespace oxbow::cowloop {

// Thread safety: a value.
struct RepairCowfile {
  bool dry_run = false;  // say what would be done, write nothing
  bool force = false;    // also of one that isn't dirty, or that was kept in order
  // Blocks that are not marked in the bitmap although they hold something, and are now: {first block, count}, in
  // order.
  std::function<void(Range blocks)> on_corrected = {};
  TellProgress progress = {};
};

// What was done, or would be. Thread safety: a value.
struct CowfileRepair {
  Head before;
  Head after;
  bool needed = false;             // else it was clean, and nothing was looked for
  std::uint64_t corrected = 0;     // blocks that were not marked
  std::uint64_t cleared = 0;       // bits behind the last block
  std::uint64_t bitmap_added = 0;  // bytes that the file lacked of its bitmap
  std::uint64_t blocks_added =
      0;  // blocks that are marked, and that the file's end cut off: the rest of them is zeros
};

// Brings a cowfile's bitmap to what its blocks say, and leaves it clean: every block with a byte that isn't zero gets
// its bit. Refused: one that is packed or is being merged; a clean one with a wrong bitmap, and one that a process of
// this boot left, without `force`. Wherever it is cut off the next one begins anew. Blocking.
[[nodiscard]] Result<CowfileRepair> repair_cowfile(Queue& queue, const std::string& path,
                                                   const RepairCowfile& options);

// The same of a store that nobody else has; it is writable but for a dry run.
[[nodiscard]] Result<CowfileRepair> repair_cowfile(Queue& queue, Store& cowfile,
                                                   const RepairCowfile& options);

}  // namespace oxbow::cowloop
