// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace oxbow {

// Preparations of a layer: the number of a state page to be read, room for one, the session, or more of the ring.
inline constexpr std::uint64_t k_ring_key = std::uint64_t{1} << 61;
inline constexpr std::uint64_t k_room_key = std::uint64_t{1} << 62;
inline constexpr std::uint64_t k_session_key = std::uint64_t{1} << 63;

}  // namespace oxbow
