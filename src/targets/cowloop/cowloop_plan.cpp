// SPDX-License-Identifier: Apache-2.0
// Where a range of a pair lives, and what it takes to change it.
#include <algorithm>

#include "os/canary.h"
#include "targets/cow/backing.h"
#include "targets/cowloop/cowloop_keys.h"
#include "targets/cowloop/cowloop_target.h"
#include "targets/cowloop/map_page.h"

namespace oxbow {
namespace {

using cowloop::k_block_bytes;
using cowloop::k_map_page_blocks;

constexpr std::uint64_t k_blocks_per_plan = Claims::k_slots / 2;

constexpr std::uint64_t end_block(Range range) noexcept { return (range.end() - 1) / k_block_bytes + 1; }

}  // namespace

Step CowloopTarget::ask(std::uint64_t key) const noexcept {
  // Who waits or prepares changes what locate() only looks at.
  return {.length = 0,
          .answer = Answer::prepare,
          .key = key,
          .owner = const_cast<CowloopTarget*>(this)};  // NOLINT(cppcoreguidelines-pro-type-const-cast)
}

Step CowloopTarget::busy_at(std::uint64_t block) noexcept {
  return {.length = 0, .answer = Answer::busy, .key = block, .owner = this};
}

Step CowloopTarget::locate(Range range, Extents& out) const noexcept {
  const std::uint64_t wanted = range.length;
  Step stopped = Step::ready(0);
  while (!range.empty() && !out.full()) {
    const std::uint64_t block = range.offset / k_block_bytes;
    const std::uint64_t page = block / k_map_page_blocks;
    if (!pages_.loaded(page)) {
      stopped = ask(page);
      break;
    }
    const std::uint64_t end = std::min(end_block(range), (page + 1) * k_map_page_blocks);
    const StateMap::Run run = states_.run(block, end - block);
    Range piece = range.prefix(((block + run.count) * k_block_bytes) - range.offset);
    if (run.state == ClusterState::absent) {
      stopped = backing_->locate(piece, out);
      if (stopped.answer != Answer::ready) break;
      piece = piece.prefix(stopped.length);
    } else {
      piece = piece.prefix(append_present(piece, out));
    }
    range = range.without_prefix(piece.length);
  }
  if (range.length < wanted) return Step::ready(wanted - range.length);
  return stopped;
}

// A cowfile may end anywhere: what it lacks is a hole. Answers for how much of the range.
std::uint64_t CowloopTarget::append_present(Range range, Extents& out) const noexcept {
  const std::uint64_t at = place(range.offset);
  const std::uint64_t file_end = cowfile_->size();
  if (at >= file_end) {
    out.push_back({.length = range.length, .kind = Kind::zero, .layer = 0, .store = nullptr, .at = 0});
    return range.length;
  }
  const std::uint64_t length = std::min(range.length, file_end - at);
  out.push_back({.length = length, .kind = Kind::data, .layer = 0, .store = cowfile_.get(), .at = at});
  return length;
}

// What the first new block of a page, and of the file, needs.
Step CowloopTarget::ready_for_new(std::uint64_t page) const noexcept {
  if (!session_begun_.load(std::memory_order_acquire)) return ask(cowloop::k_session_key);
  if (!pages_.has_room(page)) return ask(cowloop::k_room_key | page);
  return Step::ready(1);
}

Step CowloopTarget::plan(Range range, const Change& change, Plan& plan) noexcept {
  const std::uint64_t first = range.offset / k_block_bytes;
  const std::uint64_t page = first / k_map_page_blocks;
  if (!pages_.loaded(page)) return ask(page);
  // One page, and no more blocks than have claims of their own.
  const std::uint64_t limit = std::min((page + 1) * k_map_page_blocks, first + k_blocks_per_plan);
  range = range.prefix((limit * k_block_bytes) - range.offset);
  if (change.operation == Operation::write) return plan_move(range, change, plan);
  const bool whole = range.offset % k_block_bytes == 0 && range.length >= k_block_bytes;
  if (!whole) return plan_edge(range.prefix(((first + 1) * k_block_bytes) - range.offset), change, plan);
  return plan_move(range.prefix(range.length / k_block_bytes * k_block_bytes), change, plan);
}

// The rest of a block that a discard or zero covers in part.
Step CowloopTarget::plan_edge(Range range, const Change& change, Plan& plan) noexcept {
  if (change.operation == Operation::zero) return plan_move(range, change, plan);
  plan.owner = this;  // nothing to do, but with FUA what others did to it has to become durable
  return Step::ready(range.length);
}

// Claims up to `limit` blocks from `block` on, and keeps the claim of those that still are absent then.
std::uint64_t CowloopTarget::claim(std::uint64_t block, std::uint64_t limit, bool& busy) noexcept {
  const std::uint64_t taken = claims_.take(block, limit);
  busy = taken == 0;
  if (busy) return 0;
  const StateMap::Run run = states_.run(block, taken);
  const std::uint64_t kept = run.state == ClusterState::absent ? run.count : 0;
  if (kept < taken) claims_.drop(block + kept, taken - kept);
  return kept;
}

// Payload or zeros to blocks that are, or become, present: one move for all of them, since each has its fixed place. A
// discard moves zeros too: nothing but the bit and what lies there tells that a block reads as zeros.
Step CowloopTarget::plan_move(Range range, const Change& change, Plan& plan) noexcept {
  const std::uint64_t first = range.offset / k_block_bytes;
  const std::uint64_t page = first / k_map_page_blocks;
  const std::uint64_t end = end_block(range);
  const StateMap::Run start = states_.run(first, end - first);
  if (start.state == ClusterState::absent || start.count < end - first) {
    if (const Step step = ready_for_new(page); step.answer != Answer::ready) return step;
    if (const IoStatus room = states_.make_room(first, end - first); !room.ok())
      return Step::failed(room.error_number());
  }
  std::uint64_t block = first;
  bool busy = false;
  while (block < end && !busy && !plan.claimed.full()) {
    const StateMap::Run run = states_.run(block, end - block);
    if (run.state == ClusterState::data) {
      // Overwritten without a claim, but not before its bit is noted for the flush that makes this write durable.
      const std::uint64_t free = claims_.unclaimed(block, run.count);
      busy = free < run.count;
      block += free;
      continue;
    }
    const std::uint64_t kept = claim(block, run.count, busy);
    if (kept == 0) continue;  // busy, or present by now
    plan.claimed.push_back({block, kept});
    block += kept;
  }
  if (block == first) return busy_at(first);
  range = range.prefix((block * k_block_bytes) - range.offset);
  plan.owner = this;
  plan.claims_held = !plan.claimed.empty();
  plan.has_move = true;
  plan.move = {.store = cowfile_.get(),
               .at = place(range.offset),
               .body = range.length,
               .from = change.operation == Operation::write ? Source::payload : Source::zeros,
               .allocate = change.allocate};
  if (!plan.claimed.empty()) set_fill_in(range, plan);
  // A hole takes no room.
  const bool punches =
      plan.move.from == Source::zeros && !plan.move.allocate && plan.move.length() == range.length;
  plan.fresh_bytes = plan.claimed.empty() || punches ? 0 : plan.move.length();
  if (canary(Canary::cowloop_zero_not_moved) && plan.move.from == Source::zeros &&
      start.count == end - first && !plan.claimed.empty() && plan.move.head + plan.move.tail == 0)
    plan.has_move = false;
  const bool durable_alone = change.operation == Operation::write && plan.claimed.empty();
  plan.durable_alone = durable_alone && pages_.settled(page) && bits_durable_.load(std::memory_order_acquire);
  if (canary(Canary::fua_without_state_page)) plan.durable_alone = change.operation == Operation::write;
  return Step::ready(range.length);
}

// Completes the first and the last block of a move where they are new and only partly covered.
void CowloopTarget::set_fill_in(Range range, Plan& plan) noexcept {
  Move& move = plan.move;
  const std::uint64_t first = range.offset / k_block_bytes;
  const std::uint64_t end = end_block(range);
  const std::uint64_t lead = range.offset - (first * k_block_bytes);
  if (lead > 0 && plan.claimed[0].first == first) {
    move.head = static_cast<std::uint32_t>(lead);
    move.head_below = backing_.get();
    move.head_from = first * k_block_bytes;
    move.at -= lead;
  }
  const std::uint64_t rest = (end * k_block_bytes) - range.end();
  const ClusterRun& final_run = plan.claimed.back();
  if (rest > 0 && final_run.first + final_run.count == end) {
    move.tail = static_cast<std::uint32_t>(rest);
    move.tail_below = backing_.get();
    move.tail_from = range.end();
  }
}

// Whole blocks become holes where the cowfile's file system has holes.
bool CowloopTarget::zeroes_fast(Range range, bool allocate) noexcept {
  const std::uint64_t first_whole = (range.offset + k_block_bytes - 1) / k_block_bytes;
  return first_whole < range.end() / k_block_bytes &&
         cowfile_->zeroes_fast(allocate ? ZeroMode::allocate : ZeroMode::may_punch);
}

void CowloopTarget::commit(Plan& plan) noexcept {
  for (const ClusterRun& run : plan.claimed) {
    states_.publish(run.first, run.count, ClusterState::data);
    used_.fetch_add(run.count, std::memory_order_relaxed);
    if (plan.move.from == Source::zeros && canary(Canary::cowloop_zero_bit_late)) continue;
    pages_.set_dirty(run.first / k_map_page_blocks);  // a plan stays within one page
  }
}

void CowloopTarget::release(Plan& plan) noexcept {
  for (const ClusterRun& run : plan.claimed) claims_.drop(run.first, run.count);
}

Progress CowloopTarget::wait(Io& io, std::uint64_t key) noexcept { return claims_.wait(io, key); }

}  // namespace oxbow
