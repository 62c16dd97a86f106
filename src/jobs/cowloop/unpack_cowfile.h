// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "formats/cowloop/head.h"
#include "jobs/cowloop/packed_source.h"
#include "jobs/hash_base.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow::cowloop {

// Thread safety: a value.
struct UnpackCowfile {
  std::string packed;  // plain or gzip
  std::string out;
  bool replace = false;  // what is at `out`
};

// Makes of a packed cowfile, of oxbow or of cowpack, the cowfile that it was, in a new file that is durable when this
// returns: the same head, bitmap and blocks. Blocks of zeros become holes. Nothing is left when the stream turns out
// to be wrong. Memory is bounded, and so is what is written: by the blocks that the bitmap names. Blocking. Answers
// the head.
[[nodiscard]] Result<Head> unpack_cowfile(Queue& queue, const UnpackCowfile& spec,
                                          const TellProgress& progress);

// The same between stores: `out` is empty, or its bytes are zeros. `path` names the source in errors. The head comes
// last.
[[nodiscard]] Result<Head> unpack_stream(Queue& queue, const std::string& path, PackedSource& source,
                                         const StreamShape& shape, Store& out, const TellProgress& progress);

}  // namespace oxbow::cowloop
