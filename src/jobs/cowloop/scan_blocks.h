// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "formats/cowloop/head.h"
#include "jobs/finding.h"
#include "jobs/hash_base.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "oxbow/range.h"
#include "stores/store.h"

namespace oxbow::cowloop {

// Thread safety: a value.
struct ScanOptions {
  std::string what;  // begins errors
  std::vector<Finding>* findings =
      nullptr;  // where parts that can't be read are told; null: that is an error
  TellProgress progress = {};
};

// Reads all blocks of a cowfile that is not packed, but for holes and what lies behind the last block of the device,
// and tells those that hold a byte that isn't zero though their bits are not set: runs of {first block, count}, in
// order. A block that the file's end cuts off counts as if zeros followed. `unmarked` may set bits of what it is
// told. Memory is bounded. Blocking.
[[nodiscard]] Result<void> scan_blocks(Queue& queue, Store& cowfile, const Head& head,
                                       const ScanOptions& options,
                                       const std::function<Result<void>(Range blocks)>& unmarked);

}  // namespace oxbow::cowloop
