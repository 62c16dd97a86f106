// SPDX-License-Identifier: Apache-2.0
// What a pair reads and writes besides blocks, in the order that docs/durability.md gives:
//
//   mark       dirty, and cowused all ones: before the first new block completes
//   capture    for each dirty page of the bitmap: clear its flag, copy its bits
//   round 1    barrier: the data, and the mark
//   round 2    write the copies; barrier
//   settled    after a flush: a clean head with the real cowused; barrier. The next new block needs the mark again.
#include <algorithm>
#include <array>
#include <utility>

#include "os/canary.h"
#include "os/queue.h"
#include "stores/blocking.h"
#include "targets/cow/backing.h"
#include "targets/cow/live_file.h"
#include "targets/cowloop/bitmap_survey.h"
#include "targets/cowloop/cowloop_keys.h"
#include "targets/cowloop/cowloop_live.h"
#include "targets/cowloop/cowloop_target.h"
#include "targets/cowloop/map_page.h"
#include "targets/flush_blocking.h"

namespace oxbow {

using What = PrepareStep::What;

namespace {

constexpr std::size_t k_pages_per_flush = 1024;

IoStatus write_head(Queue& queue, Store& cowfile, const cowloop::Head& head) noexcept {
  std::array<std::byte, cowloop::k_block_bytes> block{};
  cowloop::encode(head, block);
  return write_blocking(queue, cowfile, 0, block);
}

}  // namespace

cowloop::Head CowloopTarget::marked_head() const noexcept {
  cowloop::Head head = head_;
  head.dirty = true;
  head.used_blocks = cowloop::k_in_order;
  head.boot_id = options_.boot_id;
  head.session_id = options_.session_id;
  return head;
}

void CowloopTarget::prepare(Preparation& preparation) noexcept {
  if (preparation.key == cowloop::k_session_key) {
    if (session_begun_.load(std::memory_order_acquire)) return;
    preparation.buffer_bytes = cowloop::k_block_bytes;
    if (canary(Canary::cowloop_mark_late)) return;
    preparation.steps.push_back({.what = What::write,
                                 .store = cowfile_.get(),
                                 .at = 0,
                                 .offset = 0,
                                 .length = cowloop::k_block_bytes});
    return;
  }
  const std::uint64_t page = preparation.key & ~cowloop::k_room_key;
  const Range at = cowloop::map_page_place(head_, page);
  if ((preparation.key & cowloop::k_room_key) != 0) {
    // Before its first new block is acknowledged: a flush must not run out of space.
    if (canary(Canary::slots_without_room)) return;
    preparation.steps.push_back(
        {.what = What::allocate, .store = cowfile_.get(), .at = at.offset, .offset = 0, .length = at.length});
    return;
  }
  if (pages_.loaded(page)) return;
  preparation.buffer_bytes = at.length;
  preparation.steps.push_back(
      {.what = What::read, .store = cowfile_.get(), .at = at.offset, .offset = 0, .length = at.length});
}

// Two threads that both begin write the same bytes.
void CowloopTarget::fill(Preparation& preparation) noexcept {
  if (preparation.key != cowloop::k_session_key || preparation.buffer_bytes == 0) return;
  if (options_.live != nullptr) options_.live->begin_session(cowloop::k_live_epoch);
  cowloop::encode(marked_head(), preparation.buffer.bytes().first<cowloop::k_block_bytes>());
}

void CowloopTarget::prepared(Preparation& preparation, IoStatus status) noexcept {
  if (!status.ok()) return;  // the request that asked fails; the next one asks again
  if (preparation.key == cowloop::k_session_key) {
    if (options_.live != nullptr) options_.live->session_begun(cowloop::k_live_epoch);
    dirty_.store(true, std::memory_order_release);
    session_begun_.store(true, std::memory_order_release);
  } else if ((preparation.key & cowloop::k_room_key) != 0) {
    pages_.set_room(preparation.key & ~cowloop::k_room_key);
  } else if (preparation.buffer_bytes > 0) {
    preparation.refused =
        install(preparation.key, preparation.buffer.bytes().first(preparation.buffer_bytes));
  }
}

IoStatus CowloopTarget::install(std::uint64_t page, std::span<const std::byte> bits) noexcept {
  // Several requests may have read the page; only the first may install it, since it may change from then on.
  const std::lock_guard lock(load_mutex_);
  if (pages_.loaded(page)) return {};
  std::uint64_t more = 0;
  const IoStatus installed = cowloop::install(states_, head_, page, bits, more);
  if (!installed.ok()) return installed;
  used_.fetch_add(more, std::memory_order_relaxed);
  pages_.set_loaded(page, 0);
  return {};
}

void CowloopTarget::capture(FlushPlan& plan) noexcept {
  plan.rounds[0].sync(*cowfile_);
  // A read-only file that was just made may not be durable yet, and what is absent here relies on it.
  if (!base_synced_) backing_->capture(plan);
  if (!options_.writable) return;
  plan.owners.push_back(this);
  // Each page is looked at in one round alone: what becomes dirty behind them is for the next flush.
  if (!std::exchange(more_wanted_, false)) next_page_ = 0;
  capture_pages(plan);
}

void CowloopTarget::capture_pages(FlushPlan& plan) noexcept {
  in_flight_.clear();
  const bool clear = !canary(Canary::dirty_cleared_after_copy);
  more_wanted_ = pages_.take_dirty(k_pages_per_flush, clear, next_page_, in_flight_);
  plan.more = plan.more || more_wanted_;
  if (in_flight_.empty()) return;
  Buffer memory = plan.buffers->take(in_flight_.size() * cowloop::k_map_page_bytes);
  if (!memory.valid()) {
    plan.status = IoStatus::error(ENOMEM);
    return;
  }
  FlushPlan::Round& round = plan.rounds[canary(Canary::cowloop_bitmap_early) ? 0 : 1];
  for (std::size_t i = 0; i < in_flight_.size(); ++i) {
    const Range at = cowloop::map_page_place(head_, in_flight_[i]);
    const auto bits = memory.bytes().subspan(i * cowloop::k_map_page_bytes, at.length);
    cowloop::compose(states_, in_flight_[i], bits);
    round.writes.push_back({cowfile_.get(), at.offset, bits});
  }
  round.sync(*cowfile_);
  plan.memory.push_back(std::move(memory));
}

void CowloopTarget::flushed(const FlushPlan& /*plan*/, IoStatus status) noexcept {
  if (!status.ok()) return;  // the device writes nothing any more
  base_synced_ = true;
  bits_durable_.store(true, std::memory_order_release);
  for (const std::uint32_t page : in_flight_) {
    pages_.written(page);
    if (canary(Canary::dirty_cleared_after_copy)) pages_.clear_dirty(page);
  }
  in_flight_.clear();
}

void CowloopTarget::failed() noexcept {
  if (options_.live != nullptr && options_.writable) options_.live->mark_dead();
}

// Nothing else runs.
IoStatus CowloopTarget::flush_all(Queue& queue) noexcept {
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

bool CowloopTarget::untidy() const noexcept {
  const bool left = session_left_.load(std::memory_order_acquire);
  return options_.writable && (left || dirty_.load(std::memory_order_acquire));
}

// Also a file that an unclean end had left marked, and that was not written since.
IoStatus CowloopTarget::leave_clean(Queue& queue) noexcept {
  if (!untidy()) return {};
  const bool early = canary(Canary::cowloop_clean_head_early);
  if (!early) {
    if (const IoStatus flushed = flush_all(queue); !flushed.ok()) return flushed;
  }
  if (!used_known_.load(std::memory_order_acquire)) {
    const auto survey = cowloop::survey_bitmap(queue, "cannot read bitmap", *cowfile_, head_);
    if (!survey) return IoStatus::error(EIO);
    used_ = survey->used;
    used_known_ = true;
  }
  cowloop::Head head = head_;
  head.dirty = false;
  head.used_blocks = used_.load(std::memory_order_relaxed);
  head.boot_id = {};
  head.session_id = {};
  IoStatus status = write_head(queue, *cowfile_, head);
  if (status.ok() && early) status = flush_all(queue);
  if (status.ok()) status = sync_blocking(queue, *cowfile_);
  if (!status.ok()) return status;
  dirty_.store(false, std::memory_order_release);
  session_left_.store(false, std::memory_order_release);
  if (!canary(Canary::cowloop_marked_once)) session_begun_.store(false, std::memory_order_release);
  return {};
}

IoStatus CowloopTarget::tidy_up(Queue& queue) noexcept {
  if (untidy()) return leave_clean(queue);
  return options_.writable ? flush_all(queue) : IoStatus{};
}

IoStatus CowloopTarget::close(Queue& queue) noexcept {
  if (!options_.writable) return {};
  if (options_.live != nullptr && canary(Canary::live_removed_early)) options_.live->remove();
  const IoStatus closed = leave_clean(queue);
  if (!closed.ok()) {
    failed();
    return closed;
  }
  if (options_.live != nullptr) options_.live->remove();
  return closed;
}

}  // namespace oxbow
