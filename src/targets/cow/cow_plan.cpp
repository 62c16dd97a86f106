// SPDX-License-Identifier: Apache-2.0
// Where a range of a layer lives, and what it takes to change it.
#include <algorithm>

#include "os/canary.h"
#include "targets/cow/claim_and_fill.h"
#include "targets/cow/cow_keys.h"
#include "targets/cow/cow_target.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_clusters_per_plan = Claims::k_slots / 2;

enum class Publish : std::uint8_t { data, zero };

}  // namespace

std::uint64_t CowTarget::end_of(std::uint64_t cluster) const noexcept {
  return std::min((cluster + 1) << shift_, size_);
}

Step CowTarget::locate(Range range, Extents& out) const noexcept {
  const std::uint64_t wanted = range.length;
  Step stopped = Step::ready(0);
  while (!range.empty() && !out.full()) {
    const std::uint64_t cluster = range.offset >> shift_;
    const std::uint64_t page = cluster / native::k_clusters_per_page;
    const std::uint64_t page_end = (page + 1) * native::k_clusters_per_page;
    if (!pages_.loaded(page)) {
      stopped = Step::prepare(*this, page);
      break;
    }
    const std::uint64_t last = std::min((range.end() - 1) >> shift_, page_end - 1);
    if (pages_.damaged(page)) {
      const std::uint64_t length = std::min(range.length, (page_end << shift_) - range.offset);
      out.push_back({.length = length, .kind = Kind::error, .layer = 0, .store = nullptr, .at = EIO});
      range = range.without_prefix(length);
      continue;
    }
    const StateMap::Run run = states_.run(cluster, last - cluster + 1);
    Range piece = range.prefix(((cluster + run.count) << shift_) - range.offset);
    if (run.state == ClusterState::absent) {
      stopped = backing_.locate(piece, out);
      if (stopped.answer != Answer::ready) break;
      piece = piece.prefix(stopped.length);
    } else {
      const bool data = run.state == ClusterState::data;
      out.push_back({.length = piece.length,
                     .kind = data ? Kind::data : Kind::zero,
                     .layer = 0,
                     .store = data ? layer_.get() : nullptr,
                     .at = data ? place(piece.offset) : 0});
    }
    range = range.without_prefix(piece.length);
  }
  if (range.length < wanted) return Step::ready(wanted - range.length);
  return stopped;
}

Step CowTarget::ready_to_change(std::uint64_t page) const noexcept {
  if (!session_begun_.load(std::memory_order_acquire)) return Step::prepare(*this, k_session_key);
  if (!pages_.loaded(page)) return Step::prepare(*this, page);
  if (pages_.damaged(page)) return Step::failed(EIO);
  if (!pages_.has_room(page)) return Step::prepare(*this, k_room_key | page);
  return Step::ready(1);
}

Step CowTarget::plan(Range range, const Change& change, Plan& plan) noexcept {
  const std::uint64_t first = range.offset >> shift_;
  const std::uint64_t page = first / native::k_clusters_per_page;
  if (const Step step = ready_to_change(page); step.answer != Answer::ready) return step;
  // One page, and no more clusters than have claims of their own.
  const std::uint64_t limit = std::min((page + 1) * native::k_clusters_per_page, first + k_clusters_per_plan);
  range = range.prefix((limit << shift_) - range.offset);
  if (change.operation == Operation::write) return plan_data(range, change, plan);
  const bool whole = range.offset == first << shift_ && range.end() >= end_of(first);
  if (!whole) return plan_edge(range.prefix(end_of(first) - range.offset), change, plan);
  const bool with_room = change.operation == Operation::zero && change.allocate;
  const std::uint64_t whole_end = range.end() >> shift_ << shift_;
  // The device's last cluster may be short. With room it goes by itself: the rest of it has to be filled in, and then
  // a move has to be small.
  const bool with_last = range.end() == size_ && (!with_room || whole_end <= range.offset);
  range = range.prefix((with_last ? size_ : whole_end) - range.offset);
  return with_room ? plan_data(range, change, plan) : plan_punch(range, plan);
}

// The rest of a cluster that a discard or zero covers in part.
Step CowTarget::plan_edge(Range range, const Change& change, Plan& plan) noexcept {
  const std::uint64_t cluster = range.offset >> shift_;
  const bool reads_as_zero = states_.state(cluster) == ClusterState::zero;
  if (change.operation == Operation::zero && reads_as_zero && claims_.unclaimed(cluster, 1) == 0) {
    return Step::busy(*this, cluster);
  }
  if (change.operation == Operation::discard || (reads_as_zero && !change.allocate)) {
    plan.owner = this;  // nothing to do, but with FUA what others did to it has to become durable
    return Step::ready(range.length);
  }
  return plan_data(range, change, plan);
}

// Payload or zeros to clusters that become, or are, data: one move for all of them, since each has its fixed
// place.
Step CowTarget::plan_data(Range range, const Change& change, Plan& plan) noexcept {
  const std::uint64_t first = range.offset >> shift_;
  const std::uint64_t end = ((range.end() - 1) >> shift_) + 1;
  if (const IoStatus room = states_.make_room(first, end - first); !room.ok()) {
    return Step::failed(room.error_number());
  }
  const auto fresh = [](ClusterState state) { return state != ClusterState::data; };
  std::uint64_t cluster = first;
  bool busy = false;
  overwrites_.begin(first, end - first);
  while (cluster < end && !busy && !plan.claimed.full()) {
    const StateMap::Run run = states_.run(cluster, end - cluster);
    if (run.state == ClusterState::data) {
      // Overwritten without a claim, but not before the state is noted for the flush that makes this write
      // durable.
      const std::uint64_t free = claims_.unclaimed(cluster, run.count);
      busy = free < run.count;
      cluster += free;
      continue;
    }
    const std::uint64_t kept = claim_wanted(claims_, states_, cluster, run.count, fresh, busy);
    if (kept == 0) continue;  // busy, or data by now
    plan.claimed.push_back({cluster, kept});
    cluster += kept;
  }
  if (cluster < end) {
    overwrites_.begin(first, cluster - first);
    overwrites_.end(first, end - first);
  }
  if (cluster == first) return Step::busy(*this, first);
  range = range.prefix((cluster << shift_) - range.offset);
  plan.owner = this;
  plan.moving = {first, cluster - first};
  plan.claims_held = true;
  plan.publish = static_cast<std::uint8_t>(Publish::data);
  plan.has_move = true;
  plan.move = {.store = layer_.get(),
               .at = place(range.offset),
               .body = range.length,
               .from = change.operation == Operation::write ? Source::payload : Source::zeros,
               .allocate = change.allocate};
  if (!plan.claimed.empty()) {
    const auto below = [this](std::uint64_t edge) -> Target* {
      return states_.state(edge) == ClusterState::absent ? &backing_ : nullptr;
    };
    fill_in_edges(range, shift_, below, plan);
  }
  plan.fresh_bytes = plan.claimed.empty() ? 0 : plan.move.length();
  // The page of everything in a record of the ring that is alive is dirty, so a replay can't bring back what this
  // overwrites.
  const bool settled = pages_.settled(first / native::k_clusters_per_page) ||
                       (ring_.alive() && canary(Canary::ring_one_barrier_after_record));
  plan.durable_alone = change.operation == Operation::write && plan.claimed.empty() && settled;
  if (canary(Canary::fua_without_state_page)) plan.durable_alone = change.operation == Operation::write;
  return Step::ready(range.length);
}

// Whole clusters that become zero: published first, punched then, while claimed.
Step CowTarget::plan_punch(Range range, Plan& plan) noexcept {
  const std::uint64_t first = range.offset >> shift_;
  const std::uint64_t end = ((range.end() - 1) >> shift_) + 1;
  if (const IoStatus room = states_.make_room(first, end - first); !room.ok()) {
    return Step::failed(room.error_number());
  }
  const StateMap::Run run = states_.run(first, end - first);
  std::uint64_t count = 0;
  if (run.state == ClusterState::zero) {
    count = claims_.unclaimed(first, run.count);
    if (count == 0) return Step::busy(*this, first);
  } else {
    bool busy = false;
    const auto not_zero = [](ClusterState state) { return state != ClusterState::zero; };
    count = claim_wanted(claims_, states_, first, end - first, not_zero, busy);
    if (busy) return Step::busy(*this, first);
    if (count == 0) return plan_punch(range, plan);  // it was zeroed meanwhile
    plan.claimed.push_back({first, count});
    plan.claims_held = true;
    plan.publish = static_cast<std::uint8_t>(Publish::zero);
    plan.punch_store = layer_.get();
    plan.punch = {place(first << shift_), count << shift_};
  }
  plan.owner = this;
  return Step::ready(range.prefix(((first + count) << shift_) - range.offset).length);
}

// Whole clusters become zero in the map. What covers none is written, and so is all that wants room, unless the
// layer's file has room without writing.
bool CowTarget::zeroes_fast(Range range, bool allocate) noexcept {
  const std::uint64_t first_whole = (range.offset + cluster_bytes_ - 1) >> shift_;
  const std::uint64_t end = range.end() == size_ ? ((size_ - 1) >> shift_) + 1 : range.end() >> shift_;
  return first_whole < end && (!allocate || layer_->zeroes_fast(ZeroMode::allocate));
}

void CowTarget::commit(Plan& plan) noexcept {
  const bool data = plan.publish == static_cast<std::uint8_t>(Publish::data);
  for (const ClusterRun& run : plan.claimed) {
    states_.publish(run.first, run.count, data ? ClusterState::data : ClusterState::zero);
    pages_.set_dirty(run.first / native::k_clusters_per_page);  // a plan stays within one page
  }
  if (!ring_.on()) return;
  if (plan.has_move) {
    log_.add({plan.move.at - data_offset_, plan.move.length()}, plan.move.length());
    return;
  }
  for (const ClusterRun& run : plan.claimed) log_.add({run.first << shift_, run.count << shift_}, 0);
}

void CowTarget::release(Plan& plan) noexcept {
  for (const ClusterRun& run : plan.claimed) claims_.drop(run.first, run.count);
  overwrites_.end(plan.moving.first, plan.moving.count);
}

Progress CowTarget::wait(Io& io, std::uint64_t key) noexcept { return claims_.wait(io, key); }

}  // namespace oxbow
