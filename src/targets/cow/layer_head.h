// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <string>
#include <vector>

#include "formats/native/layout.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow {

// What the flush records and superblocks of a layer said when it was opened.
struct LayerHead {
  native::Superblock superblock;          // the newer valid copy
  std::uint32_t stale_copy = 0;           // the copy that a change writes first: never the only good one
  bool copies_alike = false;              // both valid, of the same change
  std::uint32_t newest_record_slot = 1;   // where the newest valid record lies; the next goes to the other
  std::uint64_t flush_number = 0;         // of that record, 0 without one
  std::vector<std::uint32_t> last_pages;  // that record's entries
  std::uint64_t ring_tail = 0;            // that record's, 0 without one
  std::uint64_t ring_seq = 0;
  std::array<std::string, 2> copy_faults;  // why a superblock copy isn't valid; empty when it is
};

// Whether the file begins as every layer does, sound or not: such a file is never meant as a raw image.
[[nodiscard]] Result<bool> has_layer_magic(Queue& queue, Store& store);

// Whether a file that is shorter than its superblock says is refused.
enum class LengthRule : std::uint8_t {
  whole,
  any,  // for whoever looks at what is left; records are read only where all metadata is there
};
// Reads and checks superblocks and flush records. Errors say what is wrong with the file.
[[nodiscard]] Result<LayerHead> read_layer_head(Queue& queue, Store& layer,
                                                LengthRule rule = LengthRule::whole);

// What the two slots of a state page say together.
struct PageContent {
  bool damaged = false;  // no version can be trusted
  bool torn = false;     // the last flush was cut off while it wrote a slot of this page
  std::uint32_t next_slot = 0;
  bool empty = true;  // never written: all absent
  native::StatePage page;
};
// Picks the valid newer slot. A damaged slot gives way to the other one only when the newest record names
// that very slot and the layer wasn't closed cleanly: then it is the flush that was cut off. Any other
// damaged slot damages the page.
[[nodiscard]] PageContent choose_page(const native::StatePage& slot0, const native::StatePage& slot1,
                                      std::uint64_t index, const LayerHead& head) noexcept;

// What comes before the first write to a layer that there was before. A kill may have left in the cache alone what
// was read, and between the copies of the superblock a change may have been cut off: then rot in the newer one would
// bring the older one back, unnoticed. Makes durable what is there and, of a layer that was closed cleanly, the older
// copy the newer one's equal. Blocking.
[[nodiscard]] IoStatus settle_head(Queue& queue, Store& layer, const LayerHead& head) noexcept;

// Writes `superblock` in both copies, one after the other with a barrier in between, `first` first. Blocking.
[[nodiscard]] IoStatus write_superblocks(Queue& queue, Store& layer, native::Superblock superblock,
                                         std::uint32_t first) noexcept;

}  // namespace oxbow
