// SPDX-License-Identifier: Apache-2.0
#include "jobs/read_head.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "stores/blocking.h"

namespace oxbow {
namespace {

using native::Fault;
using native::SlotState;

void read_copies(Queue& queue, Store& layer, RawHead& raw) {
  for (std::uint32_t copy = 0; copy < 2; ++copy) {
    raw.copy_read[copy] = read_struct(queue, layer, copy_offset(copy), raw.copies[copy]);
    if (raw.copy_read[copy].ok()) {
      raw.copy_faults[copy] = native::check(raw.copies[copy], copy);
    } else {
      raw.copy_faults[copy] = {Fault::checksum,
                               fmt::format("superblock copy {} cannot be read: {}", copy,
                                           std::strerror(raw.copy_read[copy].error_number()))};
    }
  }
}

void read_records(Queue& queue, Store& layer, RawHead& raw) {
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    raw.records[slot] = std::make_unique<native::FlushRecord>();
    raw.record_read[slot] =
        read_struct(queue, layer, raw.head.superblock.record_offset[slot], *raw.records[slot]);
    raw.record_states[slot] = raw.record_read[slot].ok()
                                  ? native::inspect(*raw.records[slot], slot, raw.head.superblock)
                                  : SlotState::damaged;
  }
}

}  // namespace

const native::FlushRecord* RawHead::newest_record() const noexcept {
  const std::uint32_t slot = head.newest_record_slot;
  return records[slot] != nullptr && record_states[slot] == SlotState::valid ? records[slot].get() : nullptr;
}

Result<RawHead> read_raw_head(Queue& queue, Store& layer) {
  RawHead raw;
  auto head = read_layer_head(queue, layer, LengthRule::any);
  if (layer.size() < copy_offset(1) + native::k_superblock_bytes) return std::unexpected(head.error());
  read_copies(queue, layer, raw);
  const auto no_layer = [](const native::SuperblockFault& each) { return each.fault == Fault::no_magic; };
  if (std::ranges::all_of(raw.copy_faults, no_layer)) return std::unexpected(head.error());
  if (!head) {
    raw.unusable = head.error();
    return raw;
  }
  raw.head = std::move(*head);
  raw.newer_copy = 1 - raw.head.stale_copy;
  raw.truncated = layer.size() < native::file_bytes(raw.head.superblock);
  raw.metadata_there = layer.size() >= raw.head.superblock.data_offset;
  if (raw.metadata_there) read_records(queue, layer, raw);
  return raw;
}

}  // namespace oxbow
