// SPDX-License-Identifier: Apache-2.0
// The commit ring: which records the next opening for writing replays, and whether all that are alive can be reached. A
// layer that was closed cleanly has none alive, and what lies in its ring doesn't count.
#include <fmt/format.h>

#include <algorithm>

#include "jobs/check_parts.h"
#include "stores/blocking.h"
#include "targets/cow/ring_scan.h"

namespace oxbow {
namespace {

std::vector<Range> ranges_of(std::span<const std::byte> record) {
  std::vector<Range> ranges;
  const native::RingRecord head = native::ring_head(record);
  for (std::uint32_t i = 0; i < head.count; ++i) {
    const native::RingEntry entry = native::ring_entry(record, i);
    ranges.push_back({entry.offset, entry.length});
  }
  return ranges;
}

// Whether it says anything that its pages don't hold yet.
bool is_alive(std::span<const std::byte> record, const RawHead& raw, const PageFacts& facts) {
  const native::RingRecord head = native::ring_head(record);
  if (head.sequence <= raw.head.ring_tail) return false;
  const std::uint64_t span = native::k_clusters_per_page << raw.head.superblock.cluster_shift;
  return std::ranges::any_of(ranges_of(record), [&](const Range& range) {
    const auto page = facts.covered.find(range.offset / span);
    return page == facts.covered.end() || head.sequence > page->second;
  });
}

// Neighbours and overlaps made one, in order.
std::vector<Range> merged(std::vector<Range> ranges) {
  std::ranges::sort(ranges, {}, &Range::offset);
  std::vector<Range> all;
  for (const Range& each : ranges) {
    if (all.empty() || all.back().end() < each.offset) {
      all.push_back(each);
    } else {
      all.back().length = std::max(all.back().end(), each.end()) - all.back().offset;
    }
  }
  return all;
}

// What lies where the sound records end. Its checksums only if it could be a record.
Finding about_end(Queue& queue, Store& layer, const RawHead& raw, const RingVerdict& ring) {
  const native::Superblock& s = raw.head.superblock;
  Finding finding{.where = "commit ring",
                  .stored = {s.ring_offset + ring.end, native::k_ring_align_bytes},
                  .sequence = ring.last_sound + 1};
  native::RingRecord head{};
  if (ring.end + native::k_ring_align_bytes > s.ring_length ||
      !read_struct(queue, layer, s.ring_offset + ring.end, head).ok()) {
    return finding;
  }
  const std::uint64_t length = native::ring_record_bytes(head, s.ring_length - ring.end);
  if (length == 0) return finding;
  finding.stored.length = length;
  finding.epoch = head.epoch;
  std::vector<std::byte> record(length);
  if (!read_blocking(queue, layer, s.ring_offset + ring.end, record).ok()) return finding;
  native::seal_ring_record(record, s.salt);
  if (const std::uint32_t right = native::ring_head(record).crc; right != head.crc)
    finding.checksum = Checksum{head.crc, right};
  return finding;
}

// Whether an append that was to follow the last sound record was cut off, as far as can be seen.
bool looks_cut_off(Queue& queue, Store& layer, const RawHead& raw, const RingVerdict& ring) {
  const native::Superblock& s = raw.head.superblock;
  native::RingRecord head{};
  if (ring.end + native::k_ring_align_bytes > s.ring_length ||
      !read_struct(queue, layer, s.ring_offset + ring.end, head).ok()) {
    return false;
  }
  return head.magic == native::k_ring_magic && head.epoch <= s.epoch && head.epoch >= s.absent_before &&
         head.sequence == std::max(ring.last_sound, raw.head.ring_tail) + 1;
}

}  // namespace

Result<RingVerdict> judge_ring(Queue& queue, Store& layer, const RawHead& raw, const PageFacts& facts) {
  RingVerdict ring;
  if (!raw.in_use()) return ring;
  const native::Superblock& s = raw.head.superblock;
  const auto scan = scan_ring(
      queue, layer, s, [&](std::uint64_t /*position*/, std::span<const std::byte> record) -> Result<void> {
        if (!is_alive(record, raw, facts)) return {};
        ring.last = native::ring_head(record).sequence;
        if (ring.alive++ == 0) ring.first = ring.last;
        return {};
      });
  if (!scan) return std::unexpected(scan.error());
  ring.end = scan->end;
  ring.last_sound = scan->last_sequence;
  const auto looked = visit_later_records(
      queue, layer, s, *scan, [&](std::uint64_t position, std::span<const std::byte> record) -> Result<void> {
        if (is_alive(record, raw, facts))
          ring.beyond.push_back({position, native::ring_head(record).sequence, ranges_of(record)});
        return {};
      });
  if (!looked) return std::unexpected(looked.error());
  return ring;
}

std::uint64_t check_ring(Queue& queue, Store& layer, const RawHead& raw, const PageFacts& facts,
                         std::vector<Finding>& findings) {
  const auto ring = judge_ring(queue, layer, raw, facts);
  if (!ring) {
    findings.push_back({.where = "commit ring", .why = ring.error().text()});
    return 0;
  }
  if (ring->alive > 0) {
    findings.push_back(
        {.gravity = Gravity::note,
         .where = "commit ring",
         .why = fmt::format("{} records (sequence {} to {}) are replayed when it is opened for writing",
                            ring->alive, ring->first, ring->last)});
  }
  if (!ring->beyond.empty()) {
    Finding finding = about_end(queue, layer, raw, *ring);
    std::vector<Range> lost;
    for (const LaterRecord& each : ring->beyond)
      lost.insert(lost.end(), each.ranges.begin(), each.ranges.end());
    finding.why = fmt::format(
        "the record there is damaged, but {} behind it (from sequence {} on) {} whole: what they and it hold "
        "was flushed, "
        "and nobody can tell what the damaged one held",
        ring->beyond.size(), ring->beyond.front().sequence, ring->beyond.size() == 1 ? "is" : "are");
    finding.lost = merged(std::move(lost));
    findings.push_back(std::move(finding));
  } else if (raw.in_use() && looks_cut_off(queue, layer, raw, *ring)) {
    Finding finding = about_end(queue, layer, raw, *ring);
    finding.gravity = Gravity::note;
    finding.why = "the record there is not whole: an append was cut off, or it was the last one and rotted";
    findings.push_back(std::move(finding));
  }
  return ring->alive;
}

}  // namespace oxbow
