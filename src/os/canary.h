// SPDX-License-Identifier: Apache-2.0
#pragma once

// Switches that break one rule of the durability contract each, so that the crash tests can prove that they
// would notice. They exist only in the library compiled with OXBOW_CANARIES; elsewhere every question is
// constant false and costs nothing.

#include <array>
#include <cstdint>
#include <functional>
#include <string_view>
#include <utility>

namespace oxbow {

enum class Canary : std::uint8_t {
  none,
  flush_barriers_swapped,    // state pages are written and made durable before record and data
  first_barrier_dropped,     // the flush's first barrier is left out
  dirty_cleared_after_copy,  // a page's dirty flag is cleared after its words were copied
  fill_in_omitted,           // the rest of a partly covered fresh cluster is not filled in from below
  claim_dropped_early,       // claims end before the bytes have moved
  fua_without_state_page,    // FUA relies on a durable write alone, also over fresh clusters
  punch_without_claim,       // a discard punches after it gave up its claim
  live_leaf_owned_early,     // a leaf of the live state has its owner before it has its contents
  live_leaves_private,       // the states lie in memory of the process alone, beside the live file
  live_leaf_overwritten,     // what a state page on the disk says replaces what the live state says
  live_pages_not_dirty,      // pages with states that were adopted are not written by the next flush
  live_not_marked_dead,      // after a failed barrier or write of metadata the live state still counts
  reset_punches_first,       // a reset punches before its superblock is durable
  grow_superblock_first,     // a layer's new size is recorded before its file is that long
  merge_without_flag,        // a merge begins without saying so in the layer
  merge_ends_early,          // a merge ends in the layer before its base is durable
  merge_punches_first,       // a merge punches what it copied before it has ended in the layer
  live_adoption_replays,     // the commit ring is replayed over states and data that are newer
  ring_append_clears_dirty,  // a ring record takes the place of writing its pages
  ring_append_without_hold,  // overwrites go on while a record's bytes are read back
  // FUA relies on a durable write alone while records are alive
  ring_one_barrier_after_record,
  // records are replayed over pages that are newer
  ring_replay_without_ring_seq,
  // a flush record counts ring records as covered before the flush is completed
  ring_start_of_running_flush,
  full_change_not_retried,  // a change that waited for room is answered without being tried again
  full_flush_not_held,      // flushes go on while changes wait for room
  slots_without_room,       // a page's slots get no room before its first cluster is acknowledged
  live_removed_early,       // a clean close removes the live file before the superblock says that it is clean
  live_counts_early,        // the live state counts before its session has begun
  cowloop_mark_late,        // a pair gets new blocks before its cowfile is marked
  cowloop_bitmap_early,     // bits are written before the barrier that covers their blocks
  cowloop_zero_bit_late,    // blocks that become present by a zero are not noted for the flush
  cowloop_zero_not_moved,   // a zero of absent blocks leaves what lies at their place
  cowloop_clean_head_early,  // the clean head is written before the flush that it speaks of
  cowloop_marked_once,       // after a clean head, new blocks complete without the mark
};

struct CanaryName {
  Canary canary;
  std::string_view name;
};
inline constexpr std::array k_canary_names{
    CanaryName{Canary::flush_barriers_swapped, "flush-barriers-swapped"},
    CanaryName{Canary::first_barrier_dropped, "first-barrier-dropped"},
    CanaryName{Canary::dirty_cleared_after_copy, "dirty-cleared-after-copy"},
    CanaryName{Canary::fill_in_omitted, "fill-in-omitted"},
    CanaryName{Canary::claim_dropped_early, "claim-dropped-early"},
    CanaryName{Canary::fua_without_state_page, "fua-without-state-page"},
    CanaryName{Canary::punch_without_claim, "punch-without-claim"},
    CanaryName{Canary::reset_punches_first, "reset-punches-first"},
    CanaryName{Canary::grow_superblock_first, "grow-superblock-first"},
    CanaryName{Canary::merge_without_flag, "merge-without-flag"},
    CanaryName{Canary::merge_ends_early, "merge-ends-early"},
    CanaryName{Canary::merge_punches_first, "merge-punches-first"},
    CanaryName{Canary::live_adoption_replays, "live-adoption-replays"},
    CanaryName{Canary::ring_append_clears_dirty, "ring-append-clears-dirty"},
    CanaryName{Canary::ring_append_without_hold, "ring-append-without-hold"},
    CanaryName{Canary::ring_one_barrier_after_record, "ring-one-barrier-after-record"},
    CanaryName{Canary::ring_replay_without_ring_seq, "ring-replay-without-ring-seq"},
    CanaryName{Canary::ring_start_of_running_flush, "ring-start-of-running-flush"},
    CanaryName{Canary::full_change_not_retried, "full-change-not-retried"},
    CanaryName{Canary::full_flush_not_held, "full-flush-not-held"},
    CanaryName{Canary::slots_without_room, "slots-without-room"},
    CanaryName{Canary::live_leaf_owned_early, "live-leaf-owned-early"},
    CanaryName{Canary::live_leaves_private, "live-leaves-private"},
    CanaryName{Canary::live_leaf_overwritten, "live-leaf-overwritten"},
    CanaryName{Canary::live_pages_not_dirty, "live-pages-not-dirty"},
    CanaryName{Canary::live_not_marked_dead, "live-not-marked-dead"},
    CanaryName{Canary::live_removed_early, "live-removed-early"},
    CanaryName{Canary::live_counts_early, "live-counts-early"},
};
// Those of pairs of cowloop.
inline constexpr std::array k_cowloop_canary_names{
    CanaryName{Canary::cowloop_mark_late, "cowloop-mark-late"},
    CanaryName{Canary::cowloop_bitmap_early, "cowloop-bitmap-early"},
    CanaryName{Canary::cowloop_zero_bit_late, "cowloop-zero-bit-late"},
    CanaryName{Canary::cowloop_zero_not_moved, "cowloop-zero-not-moved"},
    CanaryName{Canary::cowloop_clean_head_early, "cowloop-clean-head-early"},
    CanaryName{Canary::cowloop_marked_once, "cowloop-marked-once"},
};

#ifdef OXBOW_CANARIES
namespace detail {
inline Canary active_canary = Canary::none;  // the mutable globals, and only in this test library
inline std::function<void()> moment;
}  // namespace detail
inline void set_canary(Canary which) noexcept { detail::active_canary = which; }
[[nodiscard]] inline bool canary(Canary which) noexcept { return detail::active_canary == which; }
// What happens between two instructions, where no step of a simulation is: there the process may be killed too.
inline void set_canary_moment(std::function<void()> moment) { detail::moment = std::move(moment); }
inline void canary_moment() {
  if (detail::moment) detail::moment();
}
#else
[[nodiscard]] constexpr bool canary(Canary /*which*/) noexcept { return false; }
constexpr void canary_moment() noexcept {}
#endif

}  // namespace oxbow
