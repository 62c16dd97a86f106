// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/layer_head.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "formats/native/codec.h"
#include "stores/blocking.h"
#include "stores/packed/packed_index.h"

namespace oxbow {
namespace {

using native::SlotState;
using native::Superblock;

constexpr std::array<std::uint64_t, 2> k_copy_offset{0, native::k_apart_bytes};

Error cannot_open(const Store& layer, std::string why) {
  return {"cannot open layer", layer.describe(), std::move(why)};
}

// The newest valid flush record, if any, into `head`.
Result<void> read_records(Queue& queue, Store& layer, LayerHead& head) {
  std::uint64_t newest_epoch = 0;
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    auto record = std::make_unique<native::FlushRecord>();
    const IoStatus status = read_struct(queue, layer, head.superblock.record_offset[slot], *record);
    if (!status.ok()) {
      return std::unexpected(
          Error::from_errno("cannot read flush record", layer.describe(), status.error_number()));
    }
    if (native::inspect(*record, slot, head.superblock) != SlotState::valid) continue;
    if (std::pair(record->epoch, record->flush_number) < std::pair(newest_epoch, head.flush_number)) continue;
    newest_epoch = record->epoch;
    head.flush_number = record->flush_number;
    head.newest_record_slot = slot;
    head.ring_tail = record->ring_tail;
    head.ring_seq = record->ring_seq;
    head.last_pages.assign(record->pages.begin(), record->pages.begin() + record->count);
  }
  return {};
}

}  // namespace

Result<bool> has_layer_magic(Queue& queue, Store& store) {
  std::array<char, native::k_magic.size()> magic{};
  if (store.size() < sizeof(magic)) return false;
  const IoStatus read = read_struct(queue, store, 0, magic);
  if (!read.ok()) {
    return std::unexpected(Error::from_errno("cannot read file", store.describe(), read.error_number()));
  }
  return magic == native::k_magic;
}

Result<LayerHead> read_layer_head(Queue& queue, Store& layer, LengthRule rule) {
  const auto packed_layer = has_packed_magic(queue, layer);
  if (!packed_layer) return std::unexpected(packed_layer.error());
  if (*packed_layer) {
    return std::unexpected(cannot_open(
        layer, "it is a packed layer, which can only be read: oxbow unpack makes a layer of it again"));
  }
  if (layer.size() < k_copy_offset[1] + native::k_superblock_bytes) {
    return std::unexpected(
        cannot_open(layer, fmt::format("it is too short to be an oxbow layer ({} bytes)", layer.size())));
  }
  LayerHead head;
  std::array<Superblock, 2> copies;
  std::array<native::SuperblockFault, 2> faults;
  for (std::uint32_t copy = 0; copy < 2; ++copy) {
    const IoStatus status = read_struct(queue, layer, k_copy_offset[copy], copies[copy]);
    if (!status.ok()) {
      return std::unexpected(
          Error::from_errno("cannot read superblock", layer.describe(), status.error_number()));
    }
    faults[copy] = native::check(copies[copy], copy);
    head.copy_faults[copy] = faults[copy].text;
  }
  const bool valid0 = faults[0].fault == native::Fault::none;
  const bool valid1 = faults[1].fault == native::Fault::none;
  const auto foreign = [](const native::SuperblockFault& each) {
    return each.fault == native::Fault::version || each.fault == native::Fault::features;
  };
  if ((!valid0 && !valid1) || std::ranges::any_of(faults, foreign)) {
    // Of two reasons the more telling one. A sound copy of a newer oxbow counts even beside one that could be
    // read.
    const bool second = faults[1].fault > faults[0].fault;
    return std::unexpected(cannot_open(layer, faults[second ? 1 : 0].text));
  }
  const std::uint32_t newer = !valid0 || (valid1 && copies[1].sequence > copies[0].sequence) ? 1 : 0;
  head.superblock = copies[newer];
  head.stale_copy = 1 - newer;
  head.copies_alike = valid0 && valid1 && copies[0].sequence == copies[1].sequence;
  if (rule == LengthRule::any && layer.size() < head.superblock.data_offset) return head;
  const std::uint64_t needed = native::file_bytes(head.superblock);
  if (rule == LengthRule::whole && layer.size() < needed) {
    return std::unexpected(cannot_open(
        layer, fmt::format("it is truncated: {} bytes long, its superblock says {}", layer.size(), needed)));
  }
  if (auto records = read_records(queue, layer, head); !records) return std::unexpected(records.error());
  return head;
}

PageContent choose_page(const native::StatePage& slot0, const native::StatePage& slot1, std::uint64_t index,
                        const LayerHead& head) noexcept {
  const std::array<const native::StatePage*, 2> slots{&slot0, &slot1};
  PageContent content;
  const native::StatePage* best = nullptr;
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    const native::StatePage& page = *slots[slot];
    SlotState state = native::inspect(page, index, slot, head.superblock);
    if (state == SlotState::valid && native::has_invalid_state(page)) state = SlotState::damaged;
    if (state == SlotState::damaged) {
      const auto entry = static_cast<std::uint32_t>(index) | (slot == 1 ? native::k_record_slot_bit : 0);
      const bool cut_off = head.superblock.state == native::LayerState::in_use &&
                           std::ranges::find(head.last_pages, entry) != head.last_pages.end();
      if (!cut_off) content.damaged = true;
      if (cut_off) {
        content.torn = true;
        content.next_slot = slot;
      }
      continue;
    }
    if (state != SlotState::valid) continue;
    const bool newer = best == nullptr ||
                       std::pair(page.epoch, page.flush_number) > std::pair(best->epoch, best->flush_number);
    if (!newer) continue;
    best = &page;
    content.next_slot = 1 - slot;
  }
  if (best != nullptr) {
    content.page = *best;
    content.empty = false;
  }
  return content;
}

namespace {

IoStatus write_superblock(Queue& queue, Store& layer, Superblock superblock, std::uint32_t copy) noexcept {
  superblock.copy = copy;
  native::seal(superblock);
  const IoStatus written = write_struct(queue, layer, k_copy_offset[copy], superblock);
  return written.ok() ? sync_blocking(queue, layer) : written;
}

}  // namespace

IoStatus settle_head(Queue& queue, Store& layer, const LayerHead& head) noexcept {
  const bool clean = head.superblock.state == native::LayerState::clean;
  if (clean && head.copies_alike) return {};
  const IoStatus synced = sync_blocking(queue, layer);
  if (!synced.ok() || !clean) return synced;
  return write_superblock(queue, layer, head.superblock, head.stale_copy);
}

IoStatus write_superblocks(Queue& queue, Store& layer, Superblock superblock, std::uint32_t first) noexcept {
  const IoStatus written = write_superblock(queue, layer, superblock, first);
  return written.ok() ? write_superblock(queue, layer, superblock, 1 - first) : written;
}

}  // namespace oxbow
