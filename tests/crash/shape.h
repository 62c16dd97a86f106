// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "oxbow/range.h"
#include "sim/chooser.h"

namespace oxbow::crash {

struct LayerShape {
  std::uint64_t size_bytes;
  std::uint32_t cluster_shift;
  bool punches;  // whether its file system punches holes
};

// What one history is about: devices, and where requests go. Thread safety: a value.
struct Shape {
  std::uint64_t base_bytes = 0;    // 0: no base
  bool base_durable = true;        // else the base was copied a moment ago
  std::vector<LayerShape> layers;  // lowest first; they are put on each other in the course of the history
  std::vector<Range> windows;      // of every layer's device: where requests go
  unsigned pending_percent = 50;   // of the calls of a store
  unsigned depth = 1;              // requests in flight at a time
  bool ring = true;                // small flushes go to the commit ring
  bool live = false;               // whether layers have live states
  bool pair = false;    // of cowloop: the only layer is a cowfile over the base, which is its read-only file
  bool narrow = false;  // in the layout of 32-bit machines

  [[nodiscard]] std::string text() const;
};

[[nodiscard]] Shape draw_shape(sim::Chooser& chooser);
[[nodiscard]] Shape draw_pair(sim::Chooser& chooser);

}  // namespace oxbow::crash
