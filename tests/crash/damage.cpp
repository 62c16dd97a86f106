// SPDX-License-Identifier: Apache-2.0
// Rot and misdirected writes: damaged metadata is noticed, stays within what it governs, and is never served as data.
#include <fmt/format.h>

#include <algorithm>

#include "crash/history.h"
#include "formats/native/codec.h"
#include "targets/cow/layer_head.h"

namespace oxbow::crash {

using sim::Random;
using sim::SimDisk;

namespace {

[[nodiscard]] bool is_zero(const SimDisk& disk, Range range) {
  std::vector<std::byte> bytes(range.length);
  disk.read(range, bytes);
  return std::ranges::all_of(bytes, [](std::byte each) { return each == std::byte{0}; });
}

}  // namespace

LayerHead History::head_of(const std::shared_ptr<SimDisk>& disk) {
  Random random(1);
  sim::Trace trace;
  sim::SimQueue queue(random, trace);
  sim::SimStore store(queue, disk, {.name = "layer", .pending_percent = 0});
  auto head = read_layer_head(queue, store);
  if (!head) complain("cannot read the head of a sound layer: " + head.error().text());
  return head ? std::move(*head) : LayerHead{};
}

std::string History::inflict(const std::shared_ptr<SimDisk>& layer, const native::Superblock& superblock,
                             Range& suspect) {
  SimDisk& disk = *layer;
  const std::uint64_t span = native::k_clusters_per_page << superblock.cluster_shift;
  const std::uint64_t pages = (superblock.size + span - 1) / span;
  const std::uint64_t page = random_.below(pages);
  const std::uint64_t slot = random_.below(2);
  const std::uint64_t place = superblock.slot_offset[slot] + page * native::k_page_bytes;
  const auto bit = static_cast<unsigned>(random_.below(8));
  auto damage = static_cast<Damage>(random_.below(5));
  const LayerHead head = head_of(layer);
  if (superblock.state == native::LayerState::in_use) {
    // After an unclean end only a slot that the last flush left alone is told from one that it didn't finish.
    const auto entry = static_cast<std::uint32_t>(page) | (slot == 1 ? native::k_record_slot_bit : 0);
    if (std::ranges::find(head.last_pages, entry) != head.last_pages.end()) return "nothing";
    damage = Damage::page;
  }
  // A change was cut off between the copies, and the layer was not opened for writing since.
  if (damage == Damage::superblock && !head.copies_alike) return "nothing";
  switch (damage) {
    case Damage::superblock: {
      const std::uint64_t copy = random_.below(2);
      disk.flip_bit(copy * native::k_apart_bytes + random_.below(native::k_superblock_bytes), bit);
      return fmt::format("rot in superblock {}", copy);
    }
    case Damage::record:
      disk.flip_bit(superblock.record_offset[slot] + random_.below(native::k_record_bytes), bit);
      return fmt::format("rot in record {}", slot);
    case Damage::page:
      disk.flip_bit(place + random_.below(native::k_page_bytes), bit);
      suspect = {page * span, span};
      return fmt::format("rot in slot {} of page {}", slot, page);
    case Damage::ring:  // of which nothing is alive after a clean end
      disk.flip_bit(superblock.ring_offset + random_.below(64 * 1024), bit);
      return "rot in the commit ring";
    case Damage::misdirected_page:
      break;
  }
  // A page went to its other slot, or to the next page's.
  const std::uint64_t other = random_.below(pages);
  const std::uint64_t from = superblock.slot_offset[1 - slot] + other * native::k_page_bytes;
  if (!disk.has_room(from) || is_zero(disk, {from, native::k_page_bytes}))
    return "nothing";  // was never written
  disk.misdirect(from, place, native::k_page_bytes);
  suspect = {page * span, span};
  return fmt::format("slot {} of page {} misdirected to slot {} of page {}", 1 - slot, other, slot, page);
}

void History::verify_damaged() {
  if (result_.states >= options_.most_states) return;
  ++result_.states;
  Random random(random_.next());
  sim::Trace trace;
  Disks copy = disks_.clone();
  native::Superblock superblock;
  {
    Stack sound(random, trace, shape_);
    watch(sound.queue(), "opening");
    if (!sound.open(copy, false, 0)) return complain("cannot open what was not damaged yet");
    superblock = sound.top().superblock();
    const bool clean = superblock.state == native::LayerState::clean;
    if (closed_ && !clean) return complain("not clean after a clean close");
  }
  Range suspect;
  const std::string what = inflict(copy.layers.back(), superblock, suspect);
  Stack stack(random, trace, shape_);
  watch(stack.queue(), "reading after " + what);
  auto opened = stack.open(copy, random.chance(50), 0);
  if (!opened) return complain(fmt::format("after {}: cannot open: {}", what, opened.error().text()));
  read_damaged(stack, what, suspect);
}

// By sector, so that an error in one doesn't hide others.
void History::read_damaged(Stack& stack, const std::string& what, Range suspect) {
  sim::SectorBytes bytes;
  for (const std::uint64_t number : oracle_.known_sectors()) {
    const std::uint64_t at = number * k_sector_bytes;
    const IoStatus status =
        run_blocking(stack.queue(), [&](Io& io) { return stack.device().read(io, at, bytes); });
    const bool governed = at >= suspect.offset && at < suspect.end();
    if (!status.ok() && governed) continue;
    if (!status.ok()) return complain(fmt::format("after {}: {:#x} cannot be read either", what, at));
    if (auto wrong = oracle_.check_after_crash(Oracle::Crash::power_loss, at, bytes)) {
      return complain(fmt::format("after {}: {}", what, *wrong));
    }
  }
}

}  // namespace oxbow::crash
