// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "jobs/check_layer.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "targets/cow/base_policy.h"

namespace oxbow {

// What is known of one file of a chain. Thread safety: a value.
struct ChainLink {
  std::string path;
  bool layer = false;                 // else a raw image
  bool packed = false;                // a layer, packed
  std::uint64_t size_bytes = 0;       // of the device that it holds
  std::uint64_t allocated_bytes = 0;  // on the disk
  std::string problem;                // why nothing more is known; empty when all is
};

// What only packed layers have. Thread safety: a value.
struct PackedFacts {
  std::uint32_t version = 0;
  std::int64_t packed_ns = 0;  // since 1970
  std::uint64_t file_bytes = 0;
  std::uint64_t frames = 0;
  std::uint64_t frame_bytes = 0;  // of clusters, in a whole frame
};

// What is known of a layer. Thread safety: a value.
struct LayerInfo {
  CheckReport report;                 // as of the last flush when the layer is being served
  std::optional<PackedFacts> packed;  // of a packed layer; then the report has its identity and counts alone
  std::vector<ChainLink> chain;       // the layer itself first
};

// Looks at a layer, packed or not, without locking anything, so that one that is being served can be looked at.
// Bases that cannot be opened are told in the chain; those that `bases` doesn't allow are not looked at. Blocking.
[[nodiscard]] Result<LayerInfo> layer_info(Queue& queue, const std::string& path, const BasePolicy& bases);

// The chain alone.
[[nodiscard]] Result<std::vector<ChainLink>> layer_chain(Queue& queue, const std::string& path,
                                                         const BasePolicy& bases);

}  // namespace oxbow
