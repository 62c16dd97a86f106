// SPDX-License-Identifier: Apache-2.0
#pragma once

// The parts of check_layer(), which `oxbow repair` looks at too.

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "jobs/finding.h"
#include "jobs/read_head.h"
#include "jobs/scan_pages.h"

namespace oxbow {

// The part of the device that a state page governs, as far as the device reaches. Bytes.
[[nodiscard]] Range governed_by(std::uint64_t page, const native::Superblock& superblock) noexcept;

// Both superblock copies: each by itself, against the other, and what the format wants to be zero.
void check_superblocks(const RawHead& raw, std::vector<Finding>& findings);
// Both flush records.
void check_records(const RawHead& raw, std::vector<Finding>& findings);
// Who opened it last.
void check_holder(Queue& queue, Store& layer, const RawHead& raw, std::vector<Finding>& findings);

// What was found of flush numbers and ring records in all state pages, which holds the records against them.
// Thread safety: a value.
struct PageFacts {
  std::uint64_t newest_epoch = 0;  // of the newest valid slot
  std::uint64_t newest_flush = 0;
  std::uint64_t ring_seq = 0;       // the highest
  bool foreign_epoch = false;       // a slot with a right checksum is of an epoch above the superblock's
  std::uint64_t highest_epoch = 0;  // of all slots with a right checksum
  // Up to which ring record each stored page holds what the records say; everything, for a damaged one.
  std::map<std::uint64_t, std::uint64_t> covered = {};
};

// What is wrong with one slot of a page. Thread safety: a value.
struct SlotFault {
  std::string why;
  std::optional<Checksum> checksum;
};
// What the two slots of a page are. Thread safety: a value.
struct PageVerdict {
  PageContent content;  // as an opening sees it
  std::array<native::SlotState, 2> states{};
  std::array<std::optional<SlotFault>, 2> faults;  // of slots that cannot be read as the format wants
  // Of a damaged page: the slot that is whole and that the flush records prove to be the newest.
  std::optional<std::uint32_t> proven;
  // Of a damaged page: the other slot, which is whole; whether it is the newest is not known unless it is proven.
  std::optional<std::uint32_t> whole;
};
[[nodiscard]] PageVerdict judge_page(std::uint64_t index, const PageSlots& slots, const RawHead& raw);
// Tells what is wrong with a page, and notes its facts.
void check_page(std::uint64_t index, const PageSlots& slots, const PageVerdict& verdict, const RawHead& raw,
                PageFacts& facts, std::vector<Finding>& findings);
// What the records say once all pages are known.
void check_records_against(const PageFacts& facts, const RawHead& raw, std::vector<Finding>& findings);

// A record behind the place where the commit ring ends.
struct LaterRecord {
  std::uint64_t position = 0;  // from the ring's start, bytes
  std::uint64_t sequence = 0;
  std::vector<Range> ranges;  // of the device, bytes
};
// What an opening makes of the commit ring of a layer that is in use. Thread safety: a value.
struct RingVerdict {
  std::uint64_t alive = 0;  // records that are replayed
  std::uint64_t first = 0;  // their sequences
  std::uint64_t last = 0;
  std::uint64_t end = 0;            // where the sound ones end, from the ring's start
  std::uint64_t last_sound = 0;     // the last one's sequence, 0 without one
  std::vector<LaterRecord> beyond;  // alive, and not reached: what lies at `end` is damaged
};
[[nodiscard]] Result<RingVerdict> judge_ring(Queue& queue, Store& layer, const RawHead& raw,
                                             const PageFacts& facts);
// Tells what is to be replayed, and what cannot be. Returns how many records are alive.
std::uint64_t check_ring(Queue& queue, Store& layer, const RawHead& raw, const PageFacts& facts,
                         std::vector<Finding>& findings);

}  // namespace oxbow
