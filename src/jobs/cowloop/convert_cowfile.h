// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "formats/cowloop/head.h"
#include "formats/native/layout.h"
#include "jobs/hash_base.h"
#include "os/queue.h"
#include "oxbow/error.h"

namespace oxbow::cowloop {

// Thread safety: a value.
struct ConvertToLayer {
  std::string base;     // the read-only file of the cowfile; the layer's too
  std::string cowfile;  // clean, not packed
  std::string out;      // must not exist
  std::uint32_t cluster_shift = native::k_smallest_cluster_shift;
};
// Makes a layer over the same file that reads as the pair does: blocks of the cowfile become clusters, of which what
// the cowfile has not is filled in from the read-only file. Clusters that the cowfile has whole, and that are zeros,
// become zero. Where the read-only file ends inside a block the layer's device is longer by that part, which is the
// base's. The layer is durable, and closed cleanly, when it gets its name. Blocking. Answers the bytes of blocks that
// were taken.
[[nodiscard]] Result<std::uint64_t> convert_to_layer(Queue& queue, const ConvertToLayer& spec,
                                                     const TellProgress& progress);

// Thread safety: a value.
struct ConvertToCowfile {
  std::string layer;  // over a raw file as long as its device; recovered first if it was not closed cleanly
  std::string out;    // must not exist
  Layout layout = Layout::bytes_8;
};
// Makes a cowfile over the layer's base that reads as the layer does. Of a cluster those blocks are left out that
// read as the base does, if there are others: they were filled in when the cluster was first written. Blocks of zeros
// are holes. Refused: a layer over a layer, or longer than its base, or with changes in the part of its base behind
// the last whole block. Blocking. Answers the head.
[[nodiscard]] Result<Head> convert_to_cowfile(Queue& queue, const ConvertToCowfile& spec,
                                              const TellProgress& progress);

}  // namespace oxbow::cowloop
