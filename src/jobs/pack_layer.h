// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "formats/packed/frame.h"
#include "formats/packed/writer.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"
#include "targets/cow/layer_head.h"

namespace oxbow {

// Told of bytes done and bytes in all, often and from the thread that the job runs on.
using ReportProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

inline constexpr std::uint32_t k_default_frame_shift = 17;

struct PackSpec {
  std::string layer;
  std::string out;
  int level = packed::k_default_level;  // of zstd; 0: nothing is compressed
  bool replace = false;                 // what is at `out`
  bool accept_base = false;             // as OpenOptions::accept_base
};

// What became of the layer. Thread safety: a value.
struct PackReport {
  std::uint64_t data_bytes = 0;    // of the layer's clusters of data
  std::uint64_t zero_bytes = 0;    // of its clusters that were zeroed
  std::uint64_t packed_bytes = 0;  // of the file that was made
};

// Packs a layer, without its base, into a new file that is durable when this returns. The layer is opened with its
// chain to be read, and recovered first if its end was unclean. What the layer holds stays exactly as it is: each
// cluster's state, and its bytes. Blocking; compresses on as many threads as there are processors.
[[nodiscard]] Result<PackReport> pack_layer(Queue& queue, const PackSpec& spec,
                                            const ReportProgress& progress);

// The packed form of the clean layer in `layer`, byte after byte to `append`. `threads` is 1 or more. Blocking.
[[nodiscard]] Result<PackReport> write_packed(Queue& queue, Store& layer, const LayerHead& head, int level,
                                              unsigned threads, packed::Writer::Append append,
                                              const ReportProgress& progress);

}  // namespace oxbow
