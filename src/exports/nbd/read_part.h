// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "exports/nbd/request.h"
#include "os/task.h"

namespace oxbow::nbd {

// Reads that are longer, and whose client takes fragments, are answered in parts: so memory is bounded, what
// comes before an error reaches the client, and holes are neither read nor sent.
inline constexpr std::uint64_t k_whole_read_bytes = 64U << 10;
// Data of one part, at most.
inline constexpr std::uint64_t k_part_bytes = 1U << 20;

// Makes the chunks of the next part of `request.left` and takes it off there. The last part, or an error, for
// which there is a chunk as well, ends the reply and leaves nothing. Fails only when there is no chunk, because
// memory is short or the beginning cannot be looked up.
[[nodiscard]] Task read_part(Queue& queue, Device& device, Request& request);

}  // namespace oxbow::nbd
