// SPDX-License-Identifier: Apache-2.0
// The flush of a layer, in the order that docs/durability.md gives:
//
//   capture   for each dirty page: clear its flag, copy its words
//   round 1   write the record that names the pages and their slots; barrier: data and record
//   round 2   write the copies, each to the slot that doesn't hold its last durable version; barrier
//   flushed   the new slots are the durable ones
//
// A page's newer slot so never says more than what is durable, and a torn slot is always one that the newest
// record names.
#include <algorithm>
#include <new>
#include <utility>

#include "formats/native/codec.h"
#include "os/canary.h"
#include "os/queue.h"
#include "stores/blocking.h"
#include "targets/cow/cow_target.h"
#include "targets/flush_blocking.h"

namespace oxbow {

void CowTarget::capture(FlushPlan& plan) noexcept {
  if (!options_.writable) return capture_all(plan);
  plan.owners.push_back(this);
  // The rounds of a full flush are all full ones, and each page is looked at in one of them alone: what has become
  // dirty behind them is in the log, for the next flush. Else this one would go on for as long as there is load.
  if (!std::exchange(more_wanted_, false)) {
    next_page_ = 0;
    // Before any page is looked at: what is added later belongs to the next flush as well.
    ChangeLog::Ranges changes;
    would_fit_ = log_.take(changes);
    if (would_fit_ && capture_append(changes, plan)) return;
  }
  flushing_ = Flushing::all;
  ring_.full_flush_begins();
  capture_all(plan);
}

void CowTarget::capture_all(FlushPlan& plan) noexcept {
  plan.rounds[0].sync(*layer_);
  // A base that was just made may not be durable yet, and what is absent here relies on it.
  if (!base_synced_) backing_.capture(plan);
  // Until the session has begun nothing has changed; torn pages wait for it.
  if (session_begun_.load(std::memory_order_acquire)) capture_pages(plan);
}

void CowTarget::capture_pages(FlushPlan& plan) noexcept {
  in_flight_.clear();
  // Torn pages first: the record that excused them until now is no longer the newest after this one.
  for (const std::uint32_t page : torn_) pages_.take(page, in_flight_);
  torn_.clear();
  const bool clear = !canary(Canary::dirty_cleared_after_copy);
  more_wanted_ = pages_.take_dirty(native::k_pages_per_flush, clear, next_page_, in_flight_);
  if (in_flight_.empty()) return;
  plan.more = plan.more || more_wanted_;
  Buffer pages = plan.buffers->take(in_flight_.size() * native::k_page_bytes);
  Buffer record = plan.buffers->take(native::k_record_bytes);
  if (!pages.valid() || !record.valid()) {
    plan.status = IoStatus::error(ENOMEM);
    return;
  }
  compose(pages.bytes(), record.bytes(), plan);
  plan.memory.push_back(std::move(pages));
  plan.memory.push_back(std::move(record));
}

// Names no page yet, and is not sealed.
native::FlushRecord CowTarget::next_record() noexcept {
  newest_record_slot_ = 1 - newest_record_slot_;
  native::FlushRecord record{};
  record.magic = native::k_record_magic;
  record.epoch = epoch();
  record.flush_number = ++flush_number_;
  record.slot = newest_record_slot_;
  record.ring_tail = canary(Canary::ring_start_of_running_flush) ? ring_.sequence() : ring_.covered();
  record.ring_seq = ring_.sequence();
  return record;
}

void CowTarget::compose(std::span<std::byte> pages, std::span<std::byte> record_bytes,
                        FlushPlan& plan) noexcept {
  const native::Superblock& superblock = head_.superblock;
  auto& record = *new (record_bytes.data()) native::FlushRecord(next_record());
  record.count = static_cast<std::uint32_t>(in_flight_.size());
  for (std::size_t i = 0; i < in_flight_.size(); ++i) {
    const std::uint64_t index = in_flight_[i];
    const std::uint32_t slot = pages_.next_slot(index);
    record.pages[i] = in_flight_[i] | (slot == 1 ? native::k_record_slot_bit : 0);
    const auto bytes = pages.subspan(i * native::k_page_bytes, native::k_page_bytes);
    auto& page = *new (bytes.data()) native::StatePage{};
    page.magic = native::k_page_magic;
    page.index = index;
    page.slot = slot;
    page.epoch = epoch();
    page.flush_number = flush_number_;
    page.ring_seq = ring_.sequence();
    states_.compose(index, page);
    native::seal(page, superblock.salt);
    plan.rounds[1].writes.push_back({layer_.get(), native::slot_at(superblock, slot, index), bytes});
  }
  native::seal(record, superblock.salt);
  plan.rounds[0].writes.push_back({layer_.get(), superblock.record_offset[record.slot], record_bytes});
  plan.rounds[1].sync(*layer_);
}

void CowTarget::flushed(const FlushPlan& /*plan*/, IoStatus status) noexcept {
  if (flushing_ == Flushing::record) {
    if (status.ok()) ring_.appended(append_.record.size());
    let_go();
  }
  if (!status.ok() || flushing_ != Flushing::all)
    return;  // after an error the device writes nothing any more
  base_synced_ = true;
  for (const std::uint32_t page : in_flight_) {
    pages_.written(page);
    if (canary(Canary::dirty_cleared_after_copy)) pages_.clear_dirty(page);
  }
  in_flight_.clear();
  if (more_wanted_ || !session_begun_.load(std::memory_order_acquire)) return;
  ring_.full_flush_done(would_fit_);
  all_wanted_ = false;
}

// Nothing else runs: a full flush, whatever a record could do.
IoStatus CowTarget::flush_all(Queue& queue) noexcept {
  all_wanted_ = true;
  more_wanted_ = false;
  IoStatus status;
  do {
    FlushPlan plan;
    plan.buffers = &queue.buffers();
    capture(plan);
    status = flush_blocking(queue, plan);
    flushed(plan, status);
  } while (status.ok() && more_wanted_);
  return status;
}

// A layer that had an unclean end and was not written since: a session only to leave it clean.
IoStatus CowTarget::recover(Queue& queue) noexcept {
  if (const IoStatus begun = begin_session_now(queue); !begun.ok()) return begun;
  live_counts();
  return flush_all(queue);
}

// After the last flush: a record that names no page, so that from now on every bad slot is damage; then the
// superblock.
IoStatus CowTarget::leave_clean(Queue& queue) noexcept {
  if (!session_begun_.load(std::memory_order_acquire)) {
    if (head_.superblock.state == native::LayerState::clean) return {};
    if (const IoStatus recovered = recover(queue); !recovered.ok()) return recovered;
  }
  if (ring_.alive()) {
    // A clean layer has no records to replay.
    if (const IoStatus flushed = flush_all(queue); !flushed.ok()) return flushed;
  }
  native::FlushRecord record = next_record();
  native::seal(record, head_.superblock.salt);
  const IoStatus written = write_struct(queue, *layer_, head_.superblock.record_offset[record.slot], record);
  if (!written.ok()) return written;
  const IoStatus synced = sync_blocking(queue, *layer_);
  if (!synced.ok()) return synced;
  native::Superblock superblock = session_superblock();
  superblock.sequence += 1;
  superblock.state = native::LayerState::clean;
  superblock.boot_id = {};
  superblock.live_path = {};
  const IoStatus closed = write_superblocks(queue, *layer_, superblock, head_.stale_copy);
  if (closed.ok()) session_begun_.store(false, std::memory_order_release);
  return closed;
}

}  // namespace oxbow
