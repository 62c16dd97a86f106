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

using PageSlots = std::array<native::StatePage, 2>;
using VisitPage = std::function<void(std::uint64_t index, const PageSlots& slots)>;

// Reads both slots of every state page of the layer of which anything is stored, in order, and passes over those that
// were never written. Blocking.
[[nodiscard]] Result<void> scan_pages(Queue& queue, Store& layer, const native::Superblock& superblock,
                                      const VisitPage& visit);

}  // namespace oxbow
