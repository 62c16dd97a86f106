// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "jobs/finding.h"
#include "jobs/hash_base.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"
#include "targets/cow/base_policy.h"

namespace oxbow {

// What `check --data` is to do. Thread safety: a value.
struct DataOptions {
  BasePolicy bases;
  bool accept_base = false;
  TellProgress progress;
};

// Reads every data cluster that a layer itself has, and tells which parts of the device the medium refuses to give.
// Nothing when its superblocks can't be gone by. Blocking.
[[nodiscard]] Result<void> read_layer_data(Queue& queue, Store& layer, const TellProgress& progress,
                                           std::vector<Finding>& findings);

// Reads every data cluster of the layer at `path` and of all layers below it, checks their metadata, opens the whole
// chain as serving it does, and compares each base with the SHA-256 that was recorded for it, if one was. Findings name
// the file where it isn't the layer itself. Writes nothing: a layer that was not closed cleanly is refused. The
// layer is held by the caller. Blocking.
[[nodiscard]] Result<std::vector<Finding>> check_data(Queue& queue, const std::string& path,
                                                      const DataOptions& options);

}  // namespace oxbow
