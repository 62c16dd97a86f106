// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace oxbow::cowloop {

// Preparations of a pair: the number of a page of the bitmap to be read, room for one, or the mark.
inline constexpr std::uint64_t k_room_key = std::uint64_t{1} << 62;
inline constexpr std::uint64_t k_session_key = std::uint64_t{1} << 63;

}  // namespace oxbow::cowloop
