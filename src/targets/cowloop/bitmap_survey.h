// SPDX-License-Identifier: Apache-2.0
#pragma once

// Reading the bitmap of a cowfile piece by piece, so that one of a 4 TiB device (512 MiB) needs no memory.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "formats/cowloop/bitmap.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow::cowloop {

// Bitmaps up to this many bytes are counted when a pair is opened; longer ones would take too long.
inline constexpr std::uint64_t k_counted_at_open_bytes = 8 << 20;

// The bits of `first_block` on, in order; the next call begins behind them. The bytes are only valid during the call.
using VisitBits = std::function<Result<void>(std::uint64_t first_block, std::span<const std::byte> bits)>;
// Visits all of the bitmap that may have bits set: holes, and what lies beyond the file's end, are left out. Blocking.
[[nodiscard]] Result<void> read_bitmap(Queue& queue, const std::string& what, Store& cowfile,
                                       const Head& head, const VisitBits& visit);
// The same as runs of set bits, {first block, count}, which may touch each other.
[[nodiscard]] Result<void> for_each_run(Queue& queue, const std::string& what, Store& cowfile,
                                        const Head& head,
                                        const std::function<Result<void>(Range blocks)>& visit);

// What a bitmap says, held against the head and the file. Thread safety: a value.
struct BitmapSurvey {
  std::uint64_t used = 0;               // bits set, of blocks that there are
  std::optional<std::uint64_t> beyond;  // the first bit set behind the last block
  std::optional<std::uint64_t>
      missing;  // the first block that is said to be there and is not, for the file ends
  std::uint64_t missing_count = 0;
};
[[nodiscard]] Result<BitmapSurvey> survey_bitmap(Queue& queue, const std::string& what, Store& cowfile,
                                                 const Head& head);

// Why a survey contradicts the head, as the end of a sentence; nothing when it doesn't. The number of used blocks only
// counts in a clean head.
[[nodiscard]] std::optional<std::string> contradiction(const BitmapSurvey& survey, const Head& head,
                                                       std::uint64_t file_bytes);

// What an opening does: refuses a cowfile whose bitmap contradicts it, where counting is cheap.
[[nodiscard]] Result<void> check_bitmap(Queue& queue, const std::string& what, Store& cowfile,
                                        const Head& head);

}  // namespace oxbow::cowloop
