// SPDX-License-Identifier: Apache-2.0
// What the commit ring holds is brought to its places when a layer is opened after an unclean end:
//
//   which records are alive, and which of their entries are newer than their pages → if any: begin a session
//   (superblock B) → bytes to their places, states → their pages are dirty, the next flush is a full one
//
// A crash on the way leaves records and pages as they were, and it is done again.
#include <fmt/format.h>

#include <algorithm>

#include "formats/native/codec.h"
#include "os/canary.h"
#include "stores/blocking.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/ring_scan.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_page_damaged = ~std::uint64_t{0};  // in replay_from_: nothing of it is applied

Error cannot_recover(const Store& layer, std::string why) {
  return {"cannot recover layer", layer.describe(), std::move(why)};
}

}  // namespace

// Whether the record holds anything that its pages don't hold. Reads those.
Result<bool> CowTarget::is_alive(Queue& queue, std::span<const std::byte> record) {
  const native::RingRecord head = native::ring_head(record);
  if (head.sequence <= head_.ring_tail) return false;
  bool alive = false;
  for (std::uint32_t i = 0; i < head.count; ++i) {
    const std::uint64_t page = (native::ring_entry(record, i).offset >> shift_) / native::k_clusters_per_page;
    if (!replay_from_.contains(page)) {
      auto loaded = load_page(queue, page);
      if (!loaded) return std::unexpected(loaded.error());
      replay_from_[page] = pages_.damaged(page) ? k_page_damaged : *loaded;
    }
    alive = alive || head.sequence > replay_from_[page];
  }
  return alive;
}

// What was adopted is newer than any record; but those are alive until the next full flush, and count on.
Result<void> CowTarget::pass_ring(Queue& queue) {
  const auto scan = scan_ring(queue, *layer_, head_.superblock,
                              [](std::uint64_t, std::span<const std::byte>) { return Result<void>{}; });
  if (!scan) return std::unexpected(scan.error());
  ring_.continue_after(std::max(scan->last_sequence, head_.ring_seq), head_.ring_tail);
  ring_.replayed();
  return {};
}

Result<void> CowTarget::recover_ring(Queue& queue) {
  if (head_.superblock.state != native::LayerState::in_use) return {};
  if (options_.adopt && !canary(Canary::live_adoption_replays)) return pass_ring(queue);
  bool needed = false;
  const auto look = [&](std::uint64_t /*position*/, std::span<const std::byte> record) -> Result<void> {
    const auto alive = is_alive(queue, record);
    if (!alive) return std::unexpected(alive.error());
    needed = needed || *alive;
    return {};
  };
  const auto scan = scan_ring(queue, *layer_, head_.superblock, look);
  if (!scan) return std::unexpected(scan.error());
  const auto refuse_gap = [&](std::uint64_t /*position*/, std::span<const std::byte> record) -> Result<void> {
    const auto alive = is_alive(queue, record);
    if (!alive) return std::unexpected(alive.error());
    if (!*alive) return {};
    return std::unexpected(cannot_recover(
        *layer_,
        fmt::format("its commit ring is damaged at byte {}, before record {}: writes that were flushed "
                    "cannot be read; see oxbow check and oxbow repair",
                    scan->end, native::ring_head(record).sequence)));
  };
  if (auto looked = visit_later_records(queue, *layer_, head_.superblock, *scan, refuse_gap); !looked) {
    return looked;
  }
  ring_.continue_after(std::max(scan->last_sequence, head_.ring_seq), head_.ring_tail);
  if (!needed && !canary(Canary::ring_replay_without_ring_seq)) {
    replay_from_.clear();
    return {};
  }
  if (!options_.writable) {
    return std::unexpected(
        Error("cannot open layer", layer_->describe(), std::string(k_needs_recovery_reason)));
  }
  return replay_ring(queue);
}

Result<void> CowTarget::replay_ring(Queue& queue) {
  if (const IoStatus begun = begin_session_now(queue); !begun.ok()) {
    return std::unexpected(
        Error::from_errno("cannot recover layer", layer_->describe(), begun.error_number()));
  }
  const auto apply = [&](std::uint64_t /*position*/, std::span<const std::byte> record) {
    return replay(queue, record);
  };
  const auto applied = scan_ring(queue, *layer_, head_.superblock, apply);
  replay_from_.clear();
  if (!applied) return std::unexpected(applied.error());
  ring_.replayed();
  live_counts();
  return {};
}

IoStatus CowTarget::begin_session_now(Queue& queue) noexcept {
  for (const std::uint64_t at : head_.superblock.record_offset) {
    const IoStatus room =
        run_blocking(queue, [&](Io& io) { return layer_->allocate(io, {at, native::k_record_bytes}); });
    if (!room.ok() && room.error_number() != EOPNOTSUPP) return room;
  }
  session_begins();
  const IoStatus written = write_superblocks(queue, *layer_, session_superblock(), head_.stale_copy);
  if (written.ok()) {
    session_begun_.store(true, std::memory_order_release);
  } else {
    failed();  // with the barrier what an adopted live state relies on may have been taken for clean
  }
  return written;
}

Result<void> CowTarget::replay(Queue& queue, std::span<const std::byte> record) {
  const native::RingRecord head = native::ring_head(record);
  if (head.sequence <= head_.ring_tail) return {};
  std::uint64_t at = native::ring_data_at(head.count);
  for (std::uint32_t i = 0; i < head.count; ++i) {
    const native::RingEntry entry = native::ring_entry(record, i);
    const bool data = entry.state == static_cast<std::uint32_t>(ClusterState::data);
    const auto bytes = data ? record.subspan(at, entry.length) : std::span<const std::byte>{};
    at += bytes.size();
    const auto from = replay_from_.find((entry.offset >> shift_) / native::k_clusters_per_page);
    if (from == replay_from_.end() || from->second == k_page_damaged) continue;
    if (head.sequence <= from->second && !canary(Canary::ring_replay_without_ring_seq)) continue;
    if (auto replayed = replay(queue, entry, bytes); !replayed) return replayed;
  }
  return {};
}

IoStatus CowTarget::allocate_slots(Queue& queue, std::uint64_t page) noexcept {
  for (std::size_t slot = 0; slot < 2; ++slot) {
    const Range room{native::slot_at(head_.superblock, slot, page), native::k_page_bytes};
    const IoStatus status = run_blocking(queue, [&](Io& io) { return layer_->allocate(io, room); });
    if (!status.ok() && status.error_number() != EOPNOTSUPP) return status;
  }
  pages_.set_room(page);
  return {};
}

Result<void> CowTarget::replay(Queue& queue, const native::RingEntry& entry,
                               std::span<const std::byte> data) {
  const std::uint64_t first = entry.offset >> shift_;
  const std::uint64_t count = ((entry.offset + entry.length - 1) >> shift_) - first + 1;
  // What it covers in part was data before.
  const auto lacks_rest = [&](std::uint64_t edge, std::uint64_t cluster) {
    return edge % cluster_bytes_ != 0 && states_.state(cluster) != ClusterState::data;
  };
  if (lacks_rest(entry.offset, first) || lacks_rest(entry.offset + entry.length, first + count - 1)) {
    return std::unexpected(cannot_recover(
        *layer_,
        fmt::format("the commit ring has a part of a cluster at byte {} of the device that nothing else has",
                    entry.offset)));
  }
  IoStatus status = states_.make_room(first, count);
  // The room that its slots once had was not durable with the record.
  const std::uint64_t page = first / native::k_clusters_per_page;
  if (status.ok() && !pages_.has_room(page)) status = allocate_slots(queue, page);
  if (!status.ok()) {
    // told below
  } else if (data.empty()) {
    status =
        run_blocking(queue, [&](Io& io) { return layer_->discard(io, {place(entry.offset), entry.length}); });
  } else {
    status = write_blocking(queue, *layer_, place(entry.offset), data);
  }
  if (!status.ok()) {
    return std::unexpected(
        Error::from_errno("cannot recover layer", layer_->describe(), status.error_number()));
  }
  states_.publish(first, count, data.empty() ? ClusterState::zero : ClusterState::data);
  pages_.set_dirty(first / native::k_clusters_per_page);
  return {};
}

}  // namespace oxbow
