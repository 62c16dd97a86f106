// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "formats/cowloop/head.h"
#include "jobs/hash_base.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow::cowloop {

// Thread safety: a value.
struct PackCowfile {
  std::string cowfile;
  std::string out;
  bool gzip = false;
  bool replace = false;  // what is at `out`
};
// Thread safety: a value.
struct PackedCowfile {
  std::uint64_t data_bytes = 0;    // of the blocks in use
  std::uint64_t packed_bytes = 0;  // of the file that was made
};

// Packs a clean cowfile into a new file that is durable when this returns, byte for byte as cowpack -p does, or
// cowpack -p -z. Blocking.
[[nodiscard]] Result<PackedCowfile> pack_cowfile(Queue& queue, const PackCowfile& spec,
                                                 const TellProgress& progress);

// Where a stream goes. Thread safety: none.
class PackedSink {
 public:
  PackedSink() = default;
  virtual ~PackedSink() = default;
  PackedSink(const PackedSink&) = delete;
  PackedSink& operator=(const PackedSink&) = delete;
  PackedSink(PackedSink&&) = delete;
  PackedSink& operator=(PackedSink&&) = delete;
  [[nodiscard]] virtual Result<void> add(std::span<const std::byte> bytes) = 0;
  [[nodiscard]] virtual Result<void> add_zeros(std::uint64_t bytes) = 0;
};

// The stream of a sound cowfile: clean, not packed, and with all the blocks that its bitmap names. Blocking.
[[nodiscard]] Result<void> pack_stream(Queue& queue, Store& cowfile, const Head& head, Form form,
                                       PackedSink& sink, const TellProgress& progress);

}  // namespace oxbow::cowloop
