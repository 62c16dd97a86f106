// SPDX-License-Identifier: Apache-2.0
#include "jobs/scan_pages.h"

#include <algorithm>
#include <memory>

#include "formats/native/codec.h"
#include "stores/blocking.h"
#include "stores/data_pieces.h"

namespace oxbow {
namespace {

// The first page from `first` on whose slot lies in data, not in a hole; `count` when there is none.
std::uint64_t next_stored(Store& layer, std::uint64_t area, std::uint64_t first, std::uint64_t count) {
  DataPieces pieces(layer, {area + (first * native::k_page_bytes), (count - first) * native::k_page_bytes});
  const Range stored = pieces.next();
  return stored.empty() ? count : (stored.offset - area) / native::k_page_bytes;
}

}  // namespace

Result<void> scan_pages(Queue& queue, Store& layer, const native::Superblock& superblock,
                        const VisitPage& visit) {
  const auto slots = std::make_unique<PageSlots>();
  const std::uint64_t count = superblock.page_count;
  std::array<std::uint64_t, 2> stored{};
  for (std::uint64_t page = 0; page < count; ++page) {
    for (std::size_t slot = 0; slot < 2; ++slot) {
      if (stored[slot] < page || page == 0)
        stored[slot] = next_stored(layer, superblock.slot_offset[slot], page, count);
    }
    page = std::min(stored[0], stored[1]);
    if (page >= count) break;
    for (std::size_t slot = 0; slot < 2; ++slot) {
      const std::uint64_t at = native::slot_at(superblock, slot, page);
      slots->read[slot] = read_struct(queue, layer, at, slots->pages[slot]);
      if (!slots->read[slot].ok()) slots->pages[slot] = {};
    }
    if (auto visited = visit(page, *slots); !visited) return visited;
  }
  return {};
}

}  // namespace oxbow
