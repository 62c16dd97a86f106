// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "formats/native/layout.h"
#include "jobs/hash_base.h"
#include "os/queue.h"
#include "oxbow/error.h"

namespace oxbow {

// A layer that is to be made.
struct CreateSpec {
  std::string path;  // must not exist
  std::string base;
  native::BaseKind base_kind = native::BaseKind::raw;
  std::optional<std::uint64_t> size_bytes;  // without it the base's
  std::uint32_t cluster_shift = native::k_smallest_cluster_shift;
  bool hash = false;                          // record the SHA-256 of the base, which reads all of it
  std::vector<std::string> allow_bases = {};  // directories: BasePolicy has what they mean
  TellProgress progress = {};                 // of the hash
  bool discard_live = false;  // of a base that is a layer: live state that can't be used is given up
};

// Makes the layer under a temporary name in its directory, makes it durable and gives it its name: whoever sees the
// name sees a whole layer. The base is read only where it is sampled, but for `hash`. `queue` is the calling thread's
// and is waited on.
[[nodiscard]] Result<void> create_layer(Queue& queue, const CreateSpec& spec);

// The path of the base as the layer records it: absolute when it was given absolute, else relative to the layer's
// directory. Both directories have to exist.
[[nodiscard]] Result<std::string> recorded_base_path(const std::string& layer_path,
                                                     const std::string& base_path);

}  // namespace oxbow
