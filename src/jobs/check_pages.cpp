// SPDX-License-Identifier: Apache-2.0
// State pages: each slot by itself, both together, and against the flush records.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "formats/native/codec.h"
#include "jobs/check_parts.h"

namespace oxbow {
namespace {

using native::SlotState;
using native::StatePage;
using Age = std::pair<std::uint64_t, std::uint64_t>;

Age age_of(const StatePage& page) { return {page.epoch, page.flush_number}; }
Age age_of(const native::FlushRecord& record) { return {record.epoch, record.flush_number}; }

bool names(const native::FlushRecord& record, std::uint64_t index, std::uint32_t slot) {
  const auto entry = static_cast<std::uint32_t>(index) | (slot == 1 ? native::k_record_slot_bit : 0);
  const auto entries = std::span(record.pages).first(record.count);
  return std::ranges::find(entries, entry) != entries.end();
}

const native::FlushRecord* valid_record(const RawHead& raw, std::uint32_t slot) {
  return raw.record_states[slot] == SlotState::valid ? raw.records[slot].get() : nullptr;
}

// Whether the slot, which is whole, holds the newest version of its page that there can be: a record names it, of
// the very flush that wrote it, and no later one names the other slot. Both records have to be there for that.
bool is_proven(const StatePage& page, std::uint64_t index, std::uint32_t slot, const RawHead& raw) {
  const native::FlushRecord* newest = raw.newest_record();
  const native::FlushRecord* before = valid_record(raw, 1 - raw.head.newest_record_slot);
  if (newest == nullptr) return false;
  if (age_of(*newest) == age_of(page)) return names(*newest, index, slot);
  if (before == nullptr || before->flush_number + 1 != newest->flush_number) return false;
  return age_of(*before) == age_of(page) && names(*before, index, slot) && !names(*newest, index, 1 - slot);
}

std::optional<SlotFault> fault_of(const StatePage& page, IoStatus read, std::uint64_t index,
                                  std::uint32_t slot, const native::Superblock& superblock) {
  if (!read.ok())
    return SlotFault{fmt::format("it cannot be read: {}", std::strerror(read.error_number())), {}};
  const SlotState state = native::inspect(page, index, slot, superblock);
  if (state == SlotState::valid && native::has_invalid_state(page))
    return SlotFault{"a cluster has the invalid state 10", {}};
  if (state != SlotState::damaged) return std::nullopt;
  if (const std::uint32_t right = native::checksum(page, superblock.salt); page.crc != right)
    return SlotFault{"its checksum is wrong", Checksum{page.crc, right}};
  if (page.magic != native::k_page_magic) return SlotFault{fmt::format("its magic is {:#x}", page.magic), {}};
  if (page.index != index || page.slot != slot)
    return SlotFault{fmt::format("it says that it is state page {} slot {}", page.index, page.slot), {}};
  if (page.epoch > superblock.epoch) {
    return SlotFault{fmt::format("its epoch {} is above the layer's, {}", page.epoch, superblock.epoch), {}};
  }
  return SlotFault{"its reserved bytes are not zero", {}};
}

std::string describe(const StatePage& page, const PageVerdict& verdict, std::uint32_t slot) {
  if (verdict.faults[slot]) return "damaged too";
  if (verdict.states[slot] == SlotState::never_written) return "never written";
  return fmt::format("{}epoch {}, flush {}", verdict.states[slot] == SlotState::dead ? "dead, of " : "",
                     page.epoch, page.flush_number);
}

Finding about_slot(std::uint64_t index, std::uint32_t slot, const PageSlots& slots, const RawHead& raw) {
  const StatePage& page = slots.pages[slot];
  Finding finding{.where = fmt::format("state page {} slot {}", index, slot),
                  .stored = {native::slot_at(raw.head.superblock, slot, index), native::k_page_bytes},
                  .page = index,
                  .slot = slot};
  if (slots.read[slot].ok()) {
    finding.epoch = page.epoch;
    finding.flush = page.flush_number;
  }
  return finding;
}

void tell_faults(std::uint64_t index, const PageSlots& slots, const PageVerdict& verdict, const RawHead& raw,
                 std::vector<Finding>& findings) {
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    if (!verdict.faults[slot]) continue;
    Finding finding = about_slot(index, slot, slots, raw);
    finding.checksum = verdict.faults[slot]->checksum;
    const std::string other = describe(slots.pages[1 - slot], verdict, 1 - slot);
    if (verdict.content.damaged) {
      finding.why = fmt::format("{}; the other slot: {}", verdict.faults[slot]->why, other);
      if (verdict.proven) finding.why += ", which the flush records prove to be the newest";
      finding.lost.push_back(governed_by(index, raw.head.superblock));
      finding.mendable = verdict.proven.has_value();
    } else {
      finding.gravity = Gravity::note;
      finding.why = fmt::format("{}: the last flush was cut off while it wrote it; the other slot: {}",
                                verdict.faults[slot]->why, other);
      finding.mendable = true;
    }
    findings.push_back(std::move(finding));
  }
}

// Whether every cluster behind the device's end is absent, as it has to be.
bool ends_with_the_device(const StatePage& page, std::uint64_t index, const native::Superblock& superblock) {
  const std::uint64_t clusters = native::cluster_count(superblock.size, superblock.cluster_shift);
  const std::uint64_t first = index * native::k_clusters_per_page;
  for (std::uint64_t i = clusters > first ? clusters - first : 0; i < native::k_clusters_per_page; ++i) {
    const native::LeafWords& leaf = page.leaves[i / native::k_clusters_per_leaf];
    const std::uint64_t in_leaf = i % native::k_clusters_per_leaf;
    if ((leaf[in_leaf / 32] >> (2 * (in_leaf % 32)) & 3) != 0) return false;
  }
  return true;
}

// What a slot that is valid by itself cannot be beside the records; empty when there is nothing.
std::string contradiction_of(const StatePage& page, std::uint64_t index, std::uint32_t slot,
                             const RawHead& raw) {
  if (!ends_with_the_device(page, index, raw.head.superblock))
    return "a cluster behind the end of the device is not absent";
  const native::FlushRecord* newest = raw.newest_record();
  if (std::ranges::find(raw.record_states, SlotState::damaged) != raw.record_states.end())
    return {};  // the one that tells of it may be the damaged one
  if (newest == nullptr || age_of(page) > age_of(*newest)) {
    return fmt::format("it is of epoch {}, flush {}, which no flush record tells of", page.epoch,
                       page.flush_number);
  }
  // Records that name nothing end a session, or were written again by a repair that didn't know what they had named.
  for (std::uint32_t i = 0; i < 2; ++i) {
    const native::FlushRecord* record = valid_record(raw, i);
    if (record != nullptr && record->flush_number == page.flush_number && record->epoch == page.epoch &&
        record->count != 0 && !names(*record, index, slot)) {
      return fmt::format("it is of flush {}, whose record doesn't name it", page.flush_number);
    }
  }
  return {};
}

}  // namespace

Range governed_by(std::uint64_t page, const native::Superblock& superblock) noexcept {
  const std::uint64_t bytes = native::k_clusters_per_page << superblock.cluster_shift;
  // Pages reach further than the device, which may be as long as the format goes.
  const std::uint64_t start = page > superblock.size / bytes ? superblock.size : page * bytes;
  return {start, std::min(bytes, superblock.size - start)};
}

PageVerdict judge_page(std::uint64_t index, const PageSlots& slots, const RawHead& raw) {
  PageVerdict verdict;
  verdict.content = choose_page(slots.pages[0], slots.pages[1], index, raw.head);
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    verdict.states[slot] = native::inspect(slots.pages[slot], index, slot, raw.head.superblock);
    verdict.faults[slot] = fault_of(slots.pages[slot], slots.read[slot], index, slot, raw.head.superblock);
    if (!slots.read[slot].ok()) verdict.content.damaged = true;
  }
  if (!verdict.content.damaged) return verdict;
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    if (!verdict.faults[1 - slot] || verdict.faults[slot] || verdict.states[slot] != SlotState::valid)
      continue;
    verdict.whole = slot;
    if (is_proven(slots.pages[slot], index, slot, raw)) verdict.proven = slot;
  }
  return verdict;
}

void check_page(std::uint64_t index, const PageSlots& slots, const PageVerdict& verdict, const RawHead& raw,
                PageFacts& facts, std::vector<Finding>& findings) {
  tell_faults(index, slots, verdict, raw, findings);
  facts.covered[index] = verdict.content.damaged ? std::numeric_limits<std::uint64_t>::max()
                         : verdict.content.empty ? 0
                                                 : verdict.content.page.ring_seq;
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    const StatePage& page = slots.pages[slot];
    const bool sealed =
        page.magic == native::k_page_magic && page.crc == native::checksum(page, raw.head.superblock.salt);
    if (sealed && page.epoch > raw.head.superblock.epoch) facts.foreign_epoch = true;
    if (sealed) facts.highest_epoch = std::max(facts.highest_epoch, page.epoch);
    if (verdict.faults[slot] || verdict.states[slot] != SlotState::valid) continue;
    if (age_of(page) > Age{facts.newest_epoch, facts.newest_flush}) {
      facts.newest_epoch = page.epoch;
      facts.newest_flush = page.flush_number;
    }
    facts.ring_seq = std::max(facts.ring_seq, page.ring_seq);
    std::string why = contradiction_of(page, index, slot, raw);
    if (why.empty()) continue;
    Finding finding = about_slot(index, slot, slots, raw);
    finding.why = std::move(why);
    findings.push_back(std::move(finding));
  }
  const bool both = verdict.states[0] == SlotState::valid && verdict.states[1] == SlotState::valid;
  if (both && !verdict.faults[0] && !verdict.faults[1] && age_of(slots.pages[0]) == age_of(slots.pages[1])) {
    Finding finding = about_slot(index, 1, slots, raw);
    finding.why = "both slots are of the same flush; nothing tells which is right";
    finding.lost.push_back(governed_by(index, raw.head.superblock));
    findings.push_back(std::move(finding));
  }
}

void check_records_against(const PageFacts& facts, const RawHead& raw, std::vector<Finding>& findings) {
  const native::FlushRecord* newest = raw.newest_record();
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    if (raw.record_states[slot] != SlotState::damaged || slot == raw.head.newest_record_slot) continue;
    const Age known = newest == nullptr ? Age{} : age_of(*newest);
    if (Age{facts.newest_epoch, facts.newest_flush} <= known) continue;
    // Its pages are only written once it is durable: so it was, and rotted since.
    for (Finding& finding : findings) {
      if (finding.where != fmt::format("flush record {}", slot) || finding.gravity == Gravity::damage)
        continue;
      finding.gravity = Gravity::redundancy;
      finding.why = fmt::format("its checksum is wrong, and it was whole once: flush {} wrote pages after it",
                                facts.newest_flush);
    }
  }
}

}  // namespace oxbow
