// SPDX-License-Identifier: Apache-2.0
#pragma once

// A layer's changes are written into its base, after which the layer has none any more:
//
//   layer clean → layer says "merging", durably → changes are written into the base → base durable and closed →
//   layer: the base as it is now, no changes, not merging → their room is given back
//
// A merge that is cut off is begun anew by the next one, and until that has ended nobody else may open the layer: its
// changes are all there, but its base is neither the old one nor the new one.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "jobs/merge_base.h"
#include "os/queue.h"
#include "oxbow/error.h"

namespace oxbow {

// How far a job is, in bytes.
using JobProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

// What a layer itself holds. Thread safety: a value.
struct LayerChanges {
  std::uint64_t data_bytes = 0;
  std::uint64_t zero_bytes = 0;
};
// Fails when a part of it can't be known. `from` is a device over the layer. Blocks.
[[nodiscard]] Result<LayerChanges> count_changes(Queue& queue, Device& from);

// Merges the clean layer in `layer` into `base`, both held by the caller alone; `from` is a device over the layer that
// only reads. Blocks.
[[nodiscard]] Result<void> merge_into_base(Queue& queue, Store& layer, Device& from, MergeBase& base,
                                           const JobProgress& progress);

// What a merge is going to do, for the question whether it may. Thread safety: a value.
struct MergeOutlook {
  std::string base;  // path
  bool base_is_layer = false;
  bool resumed = false;  // one that was cut off
  std::uint64_t base_bytes = 0;
  std::uint64_t device_bytes = 0;  // of the layer; a base that is smaller is extended
  LayerChanges changes;
};

// A merge of files, held locked from open() on. Thread safety: one thread.
class Merge {
 public:
  // Opens the layer at `path` as serving it would, leaves it clean, and takes its base for itself. Refused while
  // anybody uses either of them. Nothing of the base is changed.
  [[nodiscard]] static Result<std::unique_ptr<Merge>> open(Queue& queue, const std::string& path,
                                                           bool accept_base);
  ~Merge();
  Merge(const Merge&) = delete;
  Merge& operator=(const Merge&) = delete;
  Merge(Merge&&) = delete;
  Merge& operator=(Merge&&) = delete;

  [[nodiscard]] const MergeOutlook& outlook() const noexcept;
  // Once. When it fails the layer still has its changes, and a new merge goes on.
  [[nodiscard]] Result<void> run(const JobProgress& progress);

 private:
  struct Parts;
  explicit Merge(std::unique_ptr<Parts> parts) noexcept;
  std::unique_ptr<Parts> parts_;
};

}  // namespace oxbow
