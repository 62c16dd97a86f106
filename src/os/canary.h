// SPDX-License-Identifier: Apache-2.0
#pragma once

// Switches that break one rule of the durability contract each, so that the crash tests can prove that they
// would notice. They exist only in the library compiled with OXBOW_CANARIES; elsewhere every question is
// constant false and costs nothing.

#include <array>
#include <cstdint>
#include <string_view>

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
};

#ifdef OXBOW_CANARIES
namespace detail {
inline Canary active_canary = Canary::none;  // the one mutable global, and only in this test library
}
inline void set_canary(Canary which) noexcept { detail::active_canary = which; }
[[nodiscard]] inline bool canary(Canary which) noexcept { return detail::active_canary == which; }
#else
[[nodiscard]] constexpr bool canary(Canary /*which*/) noexcept { return false; }
#endif

}  // namespace oxbow
