// SPDX-License-Identifier: Apache-2.0
// Where a range of a pair lives, and what it takes to change it.
#include <algorithm>
#include <bit>

#include "os/canary.h"
#include "targets/cow/backing.h"
#include "targets/cow/claim_and_fill.h"
#include "targets/cowloop/cowloop_keys.h"
#include "targets/cowloop/cowloop_target.h"
#include "targets/cowloop/map_page.h"

namespace oxbow {
namespace {

using cowloop::k_block_bytes;
using cowloop::k_map_page_blocks;

constexpr std::uint32_t k_block_shift = std::countr_zero(k_block_bytes);
constexpr std::uint64_t k_blocks_per_plan = Claims::k_slots / 2;

constexpr std::uint64_t end_block(Range range) noexcept { return (range.end() - 1) / k_block_bytes + 1; }

}  // namespace

Step CowloopTarget::locate(Range range, Extents& out) const noexcept {
  const std::uint64_t wanted = range.length;
  Step stopped = Step::ready(0);
  while (!range.empty() && !out.full()) {
    const std::uint64_t block = range.offset / k_block_bytes;
    const std::uint64_t page = block / k_map_page_blocks;
    if (!pages_.loaded(page)) {
      stopped = Step::prepare(*this, page);
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
  if (!session_begun_.load(std::memory_order_acquire)) return Step::prepare(*this, cowloop::k_session_key);
  if (!pages_.has_room(page)) return Step::prepare(*this, cowloop::k_room_key | page);
  return Step::ready(1);
}

Step CowloopTarget::plan(Range range, const Change& change, Plan& plan) noexcept {
  const std::uint64_t first = range.offset / k_block_bytes;
  const std::uint64_t page = first / k_map_page_blocks;
  if (!pages_.loaded(page)) return Step::prepare(*this, page);
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
  const auto is_absent = [](ClusterState state) { return state == ClusterState::absent; };
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
    const std::uint64_t kept = claim_wanted(claims_, states_, block, run.count, is_absent, busy);
    if (kept == 0) continue;  // busy, or present by now
    plan.claimed.push_back({block, kept});
    block += kept;
  }
  if (block == first) return Step::busy(*this, first);
  range = range.prefix((block * k_block_bytes) - range.offset);
  plan.owner = this;
  plan.claims_held = !plan.claimed.empty();
  plan.has_move = true;
  plan.move = {.store = cowfile_.get(),
               .at = place(range.offset),
               .body = range.length,
               .from = change.operation == Operation::write ? Source::payload : Source::zeros,
               .allocate = change.allocate};
  const auto below = [this](std::uint64_t) { return backing_.get(); };
  if (!plan.claimed.empty()) fill_in_edges(range, k_block_shift, below, plan);
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
