// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>

#include "formats/native/layout.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow {

// Both slots of a state page as they are stored. What could not be read is zeros. Thread safety: a value.
struct PageSlots {
  std::array<native::StatePage, 2> pages{};
  std::array<IoStatus, 2> read;
};
using VisitPage = std::function<Result<void>(std::uint64_t index, const PageSlots& slots)>;

// Reads both slots of every state page of the layer of which anything is stored, in order, and passes over those that
// were never written. An error of `visit` ends it; one of the medium is told to it. Blocking.
[[nodiscard]] Result<void> scan_pages(Queue& queue, Store& layer, const native::Superblock& superblock,
                                      const VisitPage& visit);

}  // namespace oxbow
