// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "exports/nbd/negotiated.h"
#include "exports/nbd/request.h"
#include "os/task.h"

namespace oxbow::nbd {

namespace status_flag {
inline constexpr std::uint32_t k_hole = 1U << 0;
inline constexpr std::uint32_t k_zero = 1U << 1;
}  // namespace status_flag

// An answer has at most so many descriptors of each context and takes at most so many looks at the device; it may
// be about less than was asked. The client asks again for the rest.
inline constexpr std::size_t k_max_descriptors = 1024;
inline constexpr std::size_t k_max_looks = 256;

// What the contexts say of an extent.
[[nodiscard]] std::uint32_t allocation_status(const Extent& extent) noexcept;
// 0: no layer has it; 1: the device's own; 2: its base; and so on.
[[nodiscard]] std::uint32_t depth_status(const Extent& extent) noexcept;

// Makes the reply to a BLOCK_STATUS that was found to be in order: one chunk for each context that was
// selected. An error leaves the reply empty.
[[nodiscard]] Task answer_block_status(Queue& queue, Device& device, const Negotiated& negotiated,
                                       Request& request);

}  // namespace oxbow::nbd
