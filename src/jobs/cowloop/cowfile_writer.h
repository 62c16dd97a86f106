// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "formats/cowloop/bitmap.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow::cowloop {

// Fills a cowfile that is being made, block after block in ascending order. Thread safety: none.
class CowfileWriter {
 public:
  // The file is empty, or a fresh cowfile; both are borrowed. Errors begin with `what`.
  CowfileWriter(Queue& queue, std::string what, Store& cowfile, const Head& head);

  // Blocks from `first` on, whole ones; those of zeros become holes.
  [[nodiscard]] Result<void> add(std::uint64_t first, std::span<const std::byte> blocks);
  // The same of blocks that all are zeros: {first block, count}.
  [[nodiscard]] Result<void> add_zeros(Range blocks);
  // Writes what is left, and the head: clean, with the number of blocks that were added. Nothing is synced.
  [[nodiscard]] Result<Head> finish();

 private:
  [[nodiscard]] Result<void> mark(Range blocks);
  [[nodiscard]] Result<void> flush_bits();
  [[nodiscard]] Result<void> grow(std::uint64_t size);
  [[nodiscard]] Result<void> outcome(IoStatus status) const;

  Queue& queue_;
  std::string what_;
  Store& cowfile_;
  Head head_;
  std::vector<std::byte> bits_;  // a piece of the bitmap
  std::uint64_t bits_at_ = 0;    // in the bitmap, bytes
  bool bits_dirty_ = false;
};

}  // namespace oxbow::cowloop
