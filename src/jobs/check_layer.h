// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "formats/native/layout.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "oxbow/range.h"
#include "stores/store.h"

namespace oxbow {

// Something that is not as it should be in a layer's metadata.
struct Finding {
  std::string where;  // "state page 3 slot 1"
  std::string why;
  bool damage = true;  // else it is what a crash may leave behind, and nothing is lost
  Range range;         // of the device, in bytes: what cannot be read any more; empty when nothing is lost
};

// What a check saw. Thread safety: a value.
struct CheckReport {
  native::Superblock superblock{};
  std::uint64_t pages_checked = 0;  // state pages of which anything is stored
  std::uint64_t data_clusters = 0;
  std::uint64_t zero_clusters = 0;
  std::vector<Finding> findings;  // in the order of the file

  [[nodiscard]] bool damaged() const noexcept;
};

// Verifies all metadata of one layer, without its base: both superblocks, both flush records, both slots of
// every state page. Writes nothing. An error when there is not even one superblock to go by, or the file cannot
// be read. Blocking.
[[nodiscard]] Result<CheckReport> check_layer(Queue& queue, Store& layer);

}  // namespace oxbow
