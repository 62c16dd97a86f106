// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "formats/native/layout.h"
#include "jobs/finding.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow {

// What a check saw. Thread safety: a value.
struct CheckReport {
  native::Superblock superblock{};
  // Why the layer can't be opened at all, as an opening says it; the findings then tell of the superblocks alone.
  std::optional<Error> unusable;
  std::uint64_t pages_checked = 0;  // state pages of which anything is stored
  std::uint64_t data_clusters = 0;
  std::uint64_t zero_clusters = 0;
  std::uint64_t ring_records = 0;  // that the next opening for writing replays
  std::vector<Finding> findings;   // in the order of the file

  [[nodiscard]] bool damaged() const noexcept;
  // Nothing is damaged, but something that is stored twice is there only once.
  [[nodiscard]] bool redundancy_lost() const noexcept;
};

// Verifies all metadata of one layer, without its base: length, both superblocks, holder, both flush records, the
// commit ring, both slots of every state page; each by itself and against the others. Writes nothing. An error when the
// file is no layer. Blocking.
[[nodiscard]] Result<CheckReport> check_layer(Queue& queue, Store& layer);

}  // namespace oxbow
