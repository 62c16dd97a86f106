// SPDX-License-Identifier: Apache-2.0
// Superblocks, flush records, holder: each by itself and against each other.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "jobs/check_parts.h"
#include "stores/blocking.h"

namespace oxbow {
namespace {

using native::BaseKind;
using native::SlotState;
using native::Superblock;

template <typename Bytes>
bool all_zero(const Bytes& bytes) {
  return std::ranges::all_of(bytes, [](auto each) { return each == decltype(each){}; });
}

Finding about_copy(std::uint32_t copy, const Superblock& superblock, Gravity gravity, std::string why) {
  return {.gravity = gravity,
          .where = fmt::format("superblock copy {}", copy),
          .why = std::move(why),
          .stored = {copy_offset(copy), native::k_superblock_bytes},
          .slot = copy,
          .sequence = superblock.sequence,
          .epoch = superblock.epoch};
}

Finding about_both(const Superblock& superblock, Gravity gravity, std::string why) {
  return {.gravity = gravity,
          .where = "superblock",
          .why = std::move(why),
          .sequence = superblock.sequence,
          .epoch = superblock.epoch};
}

// A field of the superblock by name. Borrows nothing.
struct Field {
  const char* name;
  std::size_t offset;
  std::size_t length;
  bool lasting;  // no change of a layer changes it
};
#define OXBOW_FIELD(name, lasting) \
  Field { #name, offsetof(Superblock, name), sizeof(Superblock::name), lasting }
constexpr std::array k_fields{
    OXBOW_FIELD(version, false),
    OXBOW_FIELD(compatible, false),
    OXBOW_FIELD(read_only_compatible, false),
    OXBOW_FIELD(incompatible, false),
    OXBOW_FIELD(sequence, false),
    OXBOW_FIELD(uuid, true),
    OXBOW_FIELD(salt, true),
    OXBOW_FIELD(created_ns, true),
    OXBOW_FIELD(size, false),
    OXBOW_FIELD(base_visible, false),
    OXBOW_FIELD(max_size, true),
    OXBOW_FIELD(cluster_shift, true),
    OXBOW_FIELD(epoch, false),
    OXBOW_FIELD(absent_before, false),
    OXBOW_FIELD(state, false),
    OXBOW_FIELD(base_path_length, false),
    OXBOW_FIELD(base, false),
    OXBOW_FIELD(boot_id, false),
    OXBOW_FIELD(live_path, false),
    OXBOW_FIELD(base_path, false),
};
#undef OXBOW_FIELD

// The names of the fields in which the copies differ; of the lasting ones alone when asked.
std::string differing_fields(const std::array<Superblock, 2>& copies, bool lasting_only) {
  const auto first = std::as_bytes(std::span(&copies[0], 1));
  const auto second = std::as_bytes(std::span(&copies[1], 1));
  std::string names;
  for (const Field& field : k_fields) {
    if (lasting_only && !field.lasting) continue;
    if (std::ranges::equal(first.subspan(field.offset, field.length),
                           second.subspan(field.offset, field.length))) {
      continue;
    }
    names += (names.empty() ? "" : ", ") + std::string(field.name);
  }
  return names;
}

// Two copies that are valid by themselves.
void compare_copies(const RawHead& raw, std::vector<Finding>& findings) {
  const Superblock& newer = raw.copies[raw.newer_copy];
  const std::uint32_t stale = 1 - raw.newer_copy;
  const Superblock& older = raw.copies[stale];
  const std::string lasting = differing_fields(raw.copies, true);
  const std::string differing = differing_fields(raw.copies, false);
  if (differing.empty()) return;
  const auto damage = [&](std::string why) {
    findings.push_back(about_both(newer, Gravity::damage, std::move(why)));
  };
  if (!lasting.empty()) {
    return damage(
        fmt::format("its copies differ in what never changes: {}; nothing tells which is right", lasting));
  }
  if (newer.sequence == older.sequence) {
    return damage(fmt::format("both copies have sequence {}, but differ in {}; nothing tells which is right",
                              newer.sequence, differing));
  }
  if (older.epoch > newer.epoch || older.absent_before > newer.absent_before) {
    return damage(
        fmt::format("copy {} has the higher sequence and the lower epoch, which no change leaves: epoch {}, "
                    "copy {} has {}",
                    raw.newer_copy, newer.epoch, stale, older.epoch));
  }
  const bool cut_off = newer.sequence == older.sequence + 1 && differing != "sequence";
  Finding finding = about_copy(
      stale, older, cut_off ? Gravity::note : Gravity::redundancy,
      cut_off
          ? fmt::format("it is of the change before, the other has sequence {}: the last change was cut off "
                        "between them",
                        newer.sequence)
          : fmt::format(
                "it is older than a cut-off change leaves it, the other has sequence {}: a write of it "
                "was lost",
                newer.sequence));
  finding.mendable = true;
  findings.push_back(std::move(finding));
}

// What a valid superblock says that no oxbow writes.
void check_zeros(const Superblock& s, std::vector<Finding>& findings) {
  const auto damage = [&](std::string why) {
    findings.push_back(about_both(s, Gravity::damage, std::move(why)));
  };
  const auto rest =
      std::span(s.base_path).subspan(std::min<std::size_t>(s.base_path_length, native::k_base_path_bytes));
  if (!all_zero(rest)) damage("base_path: what follows the path is not zero");
  const auto end = std::ranges::find(s.live_path, '\0');
  if (end == s.live_path.end()) damage("live_path: it has no end");
  if (!all_zero(std::ranges::subrange(end, s.live_path.end())))
    damage("live_path: what follows the path is not zero");
  const bool clean = s.state == native::LayerState::clean;
  if (clean && (!all_zero(s.boot_id) || end != s.live_path.begin()))
    damage("boot_id and live_path: set, though it was closed cleanly");
  const native::BaseRecord& base = s.base;
  if ((base.flags & ~native::k_base_has_sha256) != 0)
    damage(fmt::format("base.flags: {:#x}, of which only bit 0 has a meaning", base.flags));
  if ((base.flags & native::k_base_has_sha256) == 0 && !all_zero(base.sha256))
    damage("base.sha256: set, though base.flags don't say so");
  const bool raw_fields =
      base.device != 0 || base.inode != 0 || base.mtime_ns != 0 || !all_zero(base.samples);
  const bool layer_fields = !all_zero(base.uuid) || base.epoch != 0;
  if ((base.kind != BaseKind::raw && raw_fields) || (base.kind != BaseKind::layer && layer_fields) ||
      (base.kind == BaseKind::none && (base.size != 0 || s.base_path_length != 0))) {
    damage("base: fields that its kind doesn't use are not zero");
  }
}

// The text of a fault beside the name of the copy.
std::string words_of(const native::SuperblockFault& fault, std::uint32_t copy) {
  for (const std::string& said :
       {fmt::format("superblock copy {}: ", copy), fmt::format("superblock copy {} is damaged: ", copy),
        fmt::format("superblock copy {} ", copy)}) {
    if (fault.text.starts_with(said)) return fault.text.substr(said.size());
  }
  return fault.text;
}

std::string record_name(std::uint32_t slot) { return fmt::format("flush record {}", slot); }

Finding about_record(const RawHead& raw, std::uint32_t slot, Gravity gravity, std::string why) {
  const native::FlushRecord& record = *raw.records[slot];
  return {.gravity = gravity,
          .where = record_name(slot),
          .why = std::move(why),
          .stored = {raw.head.superblock.record_offset[slot], native::k_record_bytes},
          .slot = slot,
          .epoch = record.epoch,
          .flush = record.flush_number};
}

void check_damaged_record(const RawHead& raw, std::uint32_t slot, std::vector<Finding>& findings) {
  const native::FlushRecord& record = *raw.records[slot];
  const Superblock& superblock = raw.head.superblock;
  const std::uint32_t right = native::checksum(record, superblock.salt);
  Finding finding = about_record(raw, slot, Gravity::redundancy, "");
  finding.mendable = true;
  if (!raw.record_read[slot].ok()) {
    finding.why = fmt::format("it cannot be read: {}", std::strerror(raw.record_read[slot].error_number()));
  } else if (record.crc != right) {
    finding.checksum = Checksum{record.crc, right};
    finding.why = "its checksum is wrong";
  } else if (record.magic != native::k_record_magic) {
    finding.why = fmt::format("its magic is {:#x}", record.magic);
  } else if (record.slot != slot) {
    finding.why = fmt::format("it says that it is flush record {}", record.slot);
  } else if (record.epoch > superblock.epoch) {
    finding.why = fmt::format("its epoch {} is above the layer's, {}", record.epoch, superblock.epoch);
    finding.gravity = Gravity::damage;
    finding.mendable = false;
  } else {
    finding.why = "its count or a reserved field is out of range";
  }
  // The record that the last flush was writing may be torn; the other one is then the newest.
  if (raw.in_use() && finding.checksum) {
    finding.gravity = Gravity::note;
    finding.why += "; the last flush may have been cut off while it wrote it";
  }
  findings.push_back(std::move(finding));
}

// What a valid record says that no flush writes; empty when there is nothing.
std::string wrong_in_record(const native::FlushRecord& record, const RawHead& raw) {
  const auto entries = std::span(record.pages).first(record.count);
  if (!all_zero(std::span(record.pages).subspan(record.count)))
    return "entries that are not in use are not zero";
  if (!all_zero(record.reserved1)) return "its reserved bytes are not zero";
  if (record.ring_tail > record.ring_seq) {
    return fmt::format("ring_tail {} is above ring_seq {}", record.ring_tail, record.ring_seq);
  }
  std::vector<std::uint32_t> pages;
  for (const std::uint32_t entry : entries) pages.push_back(entry & ~native::k_record_slot_bit);
  std::ranges::sort(pages);
  if (!pages.empty() && pages.back() >= raw.head.superblock.page_count) {
    return fmt::format("it names state page {}, there are {}", pages.back(), raw.head.superblock.page_count);
  }
  const auto twice = std::ranges::adjacent_find(pages);
  if (twice != pages.end()) return fmt::format("it names state page {} twice", *twice);
  if (record.flush_number == 0) return "its flush number is 0";
  return {};
}

// The records against each other and against the superblock.
void compare_records(const RawHead& raw, std::vector<Finding>& findings) {
  const native::FlushRecord* newest = raw.newest_record();
  if (newest == nullptr) return;
  const std::uint32_t slot = raw.head.newest_record_slot;
  const std::uint32_t other = 1 - slot;
  if (!raw.in_use() && newest->count != 0 && raw.record_states[other] != SlotState::damaged) {
    findings.push_back(about_record(
        raw, slot, Gravity::damage,
        fmt::format("it names {} pages, though the layer was closed cleanly after it", newest->count)));
  }
  if (raw.record_states[other] == SlotState::valid) {
    const native::FlushRecord& before = *raw.records[other];
    if (before.flush_number + 1 != newest->flush_number || before.epoch > newest->epoch ||
        before.ring_tail > newest->ring_tail || before.ring_seq > newest->ring_seq) {
      findings.push_back(about_record(
          raw, other, Gravity::damage,
          fmt::format(
              "it doesn't come before {}, which has epoch {}, flush {}, ring_tail {}, ring_seq {}: it has "
              "ring_tail {}, ring_seq {}",
              record_name(slot), newest->epoch, newest->flush_number, newest->ring_tail, newest->ring_seq,
              before.ring_tail, before.ring_seq)));
    }
  }
  if (raw.record_states[other] == SlotState::never_written && newest->flush_number > 1 &&
      raw.head.superblock.absent_before == 1) {
    Finding finding =
        about_record(raw, other, Gravity::redundancy,
                     fmt::format("it was never written, though flush {} was", newest->flush_number - 1));
    finding.mendable = true;
    findings.push_back(std::move(finding));
  }
}

}  // namespace

const char* name_of(Gravity gravity) noexcept {
  switch (gravity) {
    case Gravity::note:
      return "note";
    case Gravity::redundancy:
      return "redundancy";
    case Gravity::damage:
      return "damage";
  }
  return "damage";
}

void check_superblocks(const RawHead& raw, std::vector<Finding>& findings) {
  for (std::uint32_t copy = 0; copy < 2; ++copy) {
    const native::SuperblockFault& fault = raw.copy_faults[copy];
    // What a newer oxbow wrote is not damage; why it is refused is told by itself.
    if (fault.fault == native::Fault::none || fault.fault == native::Fault::version ||
        fault.fault == native::Fault::features) {
      continue;
    }
    const Gravity gravity = raw.unusable ? Gravity::damage : Gravity::redundancy;
    Finding finding = about_copy(copy, raw.copies[copy], gravity, words_of(fault, copy));
    finding.mendable = !raw.unusable;
    if (fault.fault == native::Fault::checksum && raw.copy_read[copy].ok())
      finding.checksum = Checksum{raw.copies[copy].crc, native::checksum(raw.copies[copy])};
    if (!raw.unusable) finding.why += "; the other copy is sound and serves instead";
    findings.push_back(std::move(finding));
  }
  if (raw.unusable) return;
  const auto sound = [](const native::SuperblockFault& each) { return each.fault == native::Fault::none; };
  if (std::ranges::all_of(raw.copy_faults, sound)) compare_copies(raw, findings);
  check_zeros(raw.head.superblock, findings);
  if (raw.in_use()) {
    findings.push_back(about_both(raw.head.superblock, Gravity::note,
                                  "in use or not closed cleanly; opening it for writing recovers it"));
  }
}

void check_records(const RawHead& raw, std::vector<Finding>& findings) {
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    if (raw.record_states[slot] == SlotState::damaged) check_damaged_record(raw, slot, findings);
    if (raw.record_states[slot] != SlotState::valid) continue;
    if (std::string why = wrong_in_record(*raw.records[slot], raw); !why.empty())
      findings.push_back(about_record(raw, slot, Gravity::damage, std::move(why)));
  }
  compare_records(raw, findings);
}

void check_holder(Queue& queue, Store& layer, const RawHead& raw, std::vector<Finding>& findings) {
  native::Holder holder{};
  const std::uint64_t at = raw.head.superblock.holder_offset;
  Finding finding{
      .gravity = Gravity::note, .where = "holder", .stored = {at, native::k_holder_bytes}, .mendable = true};
  const IoStatus read = read_struct(queue, layer, at, holder);
  if (!read.ok()) {
    finding.why = fmt::format("it cannot be read: {}", std::strerror(read.error_number()));
  } else if (all_zero(std::as_bytes(std::span(&holder, 1)))) {
    return;
  } else if (holder.crc != native::checksum(holder)) {
    finding.checksum = Checksum{holder.crc, native::checksum(holder)};
    finding.why = "its checksum is wrong; who opened the layer last is not known";
  } else if (holder.magic != native::k_holder_magic) {
    finding.why = fmt::format("its magic is {:#x}; who opened the layer last is not known", holder.magic);
  } else if (!all_zero(holder.reserved)) {
    finding.why = "its reserved bytes are not zero";
  } else {
    return;
  }
  findings.push_back(std::move(finding));
}

}  // namespace oxbow
