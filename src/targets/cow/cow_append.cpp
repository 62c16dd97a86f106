// SPDX-License-Identifier: Apache-2.0
// A small flush: one record of the commit ring, in the order that docs/durability.md gives:
//
//   capture   take the log → claim its clusters, none of which is being overwritten → copy their states → count the
//             record as alive, mark the pages dirty
//   reads     the bytes of what is data, from their places
//   seal      checksum, give the claims back
//   round 1   one durable write
//
// What doesn't fit, and what is being overwritten at the time, is left to a full flush.
#include <algorithm>
#include <cstring>

#include "formats/native/codec.h"
#include "os/canary.h"
#include "targets/cow/cow_target.h"

namespace oxbow {
namespace {

// Whole sectors, in order, none overlapping; neighbours are one as long as a state page governs both.
void put_in_order(ChangeLog::Ranges& changes, std::uint64_t page_bytes) noexcept {
  for (Range& each : changes) {
    const std::uint64_t end = (each.end() + k_sector_bytes - 1) / k_sector_bytes * k_sector_bytes;
    each.offset = each.offset / k_sector_bytes * k_sector_bytes;
    each.length = end - each.offset;
  }
  std::ranges::sort(changes, {}, &Range::offset);
  ChangeLog::Ranges merged;
  for (const Range& each : changes) {
    const bool joins = !merged.empty() && each.offset <= merged.back().end() &&
                       each.offset / page_bytes == merged.back().offset / page_bytes;
    if (joins) {
      merged.back().length = std::max(merged.back().end(), each.end()) - merged.back().offset;
    } else {
      merged.push_back(each);
    }
  }
  changes = merged;
}

}  // namespace

bool CowTarget::capture_append(ChangeLog::Ranges& changes, FlushPlan& plan) noexcept {
  if (!ring_.on() || all_wanted_) return false;
  flushing_ = Flushing::nothing;
  if (changes.empty()) return true;  // records and the last full flush cover all there is
  put_in_order(changes, native::k_clusters_per_page << shift_);
  if (!hold(changes) || !describe(changes)) {
    let_go();
    return false;
  }
  const std::uint64_t used =
      native::ring_data_at(static_cast<std::uint32_t>(append_.entries.size())) + append_.data_bytes;
  const std::uint64_t bytes =
      (used + native::k_ring_align_bytes - 1) / native::k_ring_align_bytes * native::k_ring_align_bytes;
  Buffer record;
  if (ring_.has_place(bytes)) record = plan.buffers->take(bytes);
  if (!record.valid()) {
    let_go();
    return false;
  }
  compose_record(plan, std::move(record));
  flushing_ = Flushing::record;
  return true;
}

// Claims the clusters of the changes, so that their states and bytes stay as they are.
bool CowTarget::hold(const ChangeLog::Ranges& changes) noexcept {
  append_.held.clear();
  if (canary(Canary::ring_append_without_hold)) return true;
  for (const Range& each : changes) {
    std::uint64_t first = each.offset >> shift_;
    const std::uint64_t end = ((each.end() - 1) >> shift_) + 1;
    if (!append_.held.empty()) first = std::max(first, append_.held.back().first + append_.held.back().count);
    if (first >= end) continue;
    const std::uint64_t taken = claims_.take(first, end - first);
    if (taken > 0) append_.held.push_back({first, taken});
    if (taken < end - first || overwrites_.any(first, end - first)) return false;
  }
  return true;
}

void CowTarget::let_go() noexcept {
  for (const ClusterRun& run : append_.held) claims_.drop(run.first, run.count);
  append_.held.clear();
}

// What the changes are by now, as entries. False when they are too many for a record.
bool CowTarget::describe(const ChangeLog::Ranges& changes) noexcept {
  append_.entries.clear();
  append_.data_bytes = 0;
  for (Range rest : changes) {
    while (!rest.empty()) {
      const std::uint64_t cluster = rest.offset >> shift_;
      const StateMap::Run run = states_.run(cluster, ((rest.end() - 1) >> shift_) - cluster + 1);
      const Range piece = rest.prefix(((cluster + run.count) << shift_) - rest.offset);
      const bool whole = piece.offset % cluster_bytes_ == 0 && piece.length % cluster_bytes_ == 0;
      const bool data = run.state == ClusterState::data;
      if (!data && (run.state != ClusterState::zero || !whole)) return false;
      if (append_.entries.full()) return false;
      append_.entries.push_back(
          {.offset = piece.offset, .length = piece.length, .state = data ? 3U : 1U, .reserved = 0});
      if (data) append_.data_bytes += piece.length;
      if (append_.data_bytes > native::k_ring_data_bytes) return false;
      rest = rest.without_prefix(piece.length);
    }
  }
  return true;
}

void CowTarget::compose_record(FlushPlan& plan, Buffer buffer) noexcept {
  const auto count = static_cast<std::uint32_t>(append_.entries.size());
  append_.record = buffer.bytes();
  plan.memory.push_back(std::move(buffer));
  native::RingRecord head{};
  head.magic = native::k_ring_magic;
  head.epoch = epoch();
  head.sequence = ring_.begin_record();
  head.length = static_cast<std::uint32_t>(append_.record.size());
  head.count = count;
  std::memcpy(append_.record.data(), &head, sizeof(head));
  std::memcpy(append_.record.data() + sizeof(head), append_.entries.begin(),
              count * sizeof(native::RingEntry));
  std::uint64_t at = native::ring_data_at(count);
  for (const native::RingEntry& entry : append_.entries) {
    const std::uint64_t page = (entry.offset >> shift_) / native::k_clusters_per_page;
    // The full flush that lets the record die has to write the page of everything in it.
    pages_.set_dirty(page);
    if (canary(Canary::ring_append_clears_dirty)) pages_.clear_dirty(page);
    if (entry.state != static_cast<std::uint32_t>(ClusterState::data)) continue;
    plan.reads.push_back({layer_.get(), place(entry.offset), append_.record.subspan(at, entry.length)});
    at += entry.length;
  }
  std::memset(append_.record.data() + at, 0, append_.record.size() - at);
  plan.rounds[0].writes.push_back({.store = &ring_.store(),
                                   .at = head_.superblock.ring_offset + ring_.position(),
                                   .data = append_.record,
                                   .mode = WriteMode::durable});
}

void CowTarget::seal(FlushPlan& /*plan*/) noexcept {
  if (flushing_ != Flushing::record) return;
  native::seal_ring_record(append_.record, head_.superblock.salt);
  let_go();
}

}  // namespace oxbow
