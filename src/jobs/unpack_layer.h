// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "formats/native/layout.h"
#include "jobs/pack_layer.h"
#include "stores/packed/packed_store.h"

namespace oxbow {

struct UnpackSpec {
  std::string packed;
  std::string out;
  bool keep_uuid = false;    // else the layer gets an identity of its own
  bool replace = false;      // what is at `out`
  bool accept_base = false;  // as OpenOptions::accept_base; of the base that is sampled again
};

// Makes a layer of a packed one in a new file that is durable when this returns: the same states, the same bytes, the
// same base by the same recorded path. A layer over a raw base that gets a new uuid has its base sampled again, because
// where samples lie depends on the uuid; so the base has to be there, and to be the one. Everything is checked
// before the file gets its name. Blocking. Answers what the layer takes, in bytes of clusters.
[[nodiscard]] Result<PackReport> unpack_layer(Queue& queue, const UnpackSpec& spec,
                                              const ReportProgress& progress);

// Writes the layer that `superblock` describes into the empty file `layer`, with the clusters of `from`. The
// superblocks come last. Blocking.
[[nodiscard]] Result<void> write_unpacked(Queue& queue, PackedStore& from, Store& layer,
                                          const native::Superblock& superblock,
                                          const ReportProgress& progress);

}  // namespace oxbow
