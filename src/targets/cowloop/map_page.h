// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bitmap of a cowfile goes in and out of memory in pages of 4 KiB. In memory it is a StateMap, whose leaves come
// when a block of theirs is first present: the bits of a page are those of 128 leaves.

#include <cstdint>
#include <span>

#include "formats/cowloop/head.h"
#include "oxbow/io_status.h"
#include "oxbow/range.h"
#include "targets/cow/state_map.h"

namespace oxbow::cowloop {

inline constexpr std::uint64_t k_map_page_bytes = 4096;
inline constexpr std::uint64_t k_map_page_blocks = k_map_page_bytes * 8;

[[nodiscard]] constexpr std::uint64_t map_pages(std::uint64_t blocks) noexcept {
  return (blocks + k_map_page_blocks - 1) / k_map_page_blocks;
}

// Where page `page` of the bitmap lies in the file; the last one may be short.
[[nodiscard]] Range map_page_place(const Head& head, std::uint64_t page) noexcept;

// Takes the bits of a page over, as they were read, but for leaves that `states` has already. `more` counts the
// blocks that those have and the page doesn't. Only before the page's blocks are used. Fails with ENOMEM, and then
// may be tried again.
[[nodiscard]] IoStatus install(StateMap& states, const Head& head, std::uint64_t page,
                               std::span<const std::byte> bits, std::uint64_t& more) noexcept;

// Fills `bits`, as long as the page is, with what the page has now.
void compose(const StateMap& states, std::uint64_t page, std::span<std::byte> bits) noexcept;

}  // namespace oxbow::cowloop
