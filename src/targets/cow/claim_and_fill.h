// SPDX-License-Identifier: Apache-2.0
#pragma once

// Two steps of planning a write to clusters that are not all there yet, for every target that copies on write.

#include <cstdint>
#include <utility>

#include "targets/cow/claims.h"
#include "targets/cow/state_map.h"
#include "targets/plan.h"

namespace oxbow {

// Claims clusters from `cluster` on, at most `limit`, and keeps the claim of those, up to the first other one, whose
// state is `wanted` then. Returns how many; `busy` says that the first one is somebody else's.
template <typename Wanted>
[[nodiscard]] std::uint64_t claim_wanted(Claims& claims, const StateMap& states, std::uint64_t cluster,
                                         std::uint64_t limit, Wanted&& wanted, bool& busy) noexcept {
  const std::uint64_t taken = claims.take(cluster, limit);
  busy = taken == 0;
  // Read again: until it was claimed somebody else may have changed it.
  std::uint64_t kept = 0;
  while (kept < taken) {
    const StateMap::Run run = states.run(cluster + kept, taken - kept);
    if (!wanted(run.state)) break;
    kept += run.count;
  }
  if (kept < taken) claims.drop(cluster + kept, taken - kept);
  return kept;
}

// Completes the first and the last cluster of the plan's move, which is of `range`, where they are claimed, so fresh,
// and only partly covered. `below` says what the rest of a cluster is read from.
template <typename Below>
void fill_in_edges(Range range, std::uint32_t shift, Below&& below, Plan& plan) noexcept {
  Move& move = plan.move;
  const std::uint64_t first = range.offset >> shift;
  const std::uint64_t last = (range.end() - 1) >> shift;
  const std::uint64_t lead = range.offset - (first << shift);
  if (lead > 0 && plan.claimed[0].first == first) {
    move.head = static_cast<std::uint32_t>(lead);
    move.head_below = below(first);
    move.head_from = first << shift;
    move.at -= lead;
  }
  const std::uint64_t rest = ((last + 1) << shift) - range.end();
  const ClusterRun& final_run = plan.claimed.back();
  if (rest > 0 && final_run.first + final_run.count == last + 1) {
    move.tail = static_cast<std::uint32_t>(rest);
    move.tail_below = below(last);
    move.tail_from = range.end();
  }
}

}  // namespace oxbow
