// SPDX-License-Identifier: Apache-2.0
#pragma once

// Reading the bitmap of a cowfile piece by piece, so that one of a 4 TiB device (512 MiB) needs no memory.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/cowloop/bitmap.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/data_pieces.h"
#include "stores/store.h"

namespace oxbow::cowloop {

// Bitmaps up to this many bytes are counted when a pair is opened; longer ones would take too long.
inline constexpr std::uint64_t k_counted_at_open_bytes = 8 << 20;

// The runs of set bits, in order. Holes, and what lies beyond the file's end, are not read. Everything blocks. Thread
// safety: none.
class RunReader {
 public:
  // All are borrowed; the bitmap must not change meanwhile.
  RunReader(Queue& queue, std::string what, Store& cowfile, const Head& head);
  // The next run, as {first block, count}; empty when there is none any more. A run may touch the one before it.
  [[nodiscard]] Result<Range> next();

 private:
  [[nodiscard]] Result<bool> load();

  Queue& queue_;
  std::string what_;
  Store& cowfile_;
  DataPieces pieces_;             // of the bitmap
  Range left_;                    // of one of them: what was not read
  std::vector<std::byte> piece_;  // of the bitmap
  std::uint64_t first_block_ = 0;
  std::uint64_t from_ = 0;  // in the piece
};

// All runs.
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
