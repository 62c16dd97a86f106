// SPDX-License-Identifier: Apache-2.0
#include "jobs/cowloop/scan_blocks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "formats/cowloop/bitmap.h"
#include "jobs/cowloop/open_cowfile.h"
#include "stores/data_pieces.h"

namespace oxbow::cowloop {
namespace {

constexpr std::uint64_t k_piece_blocks = 1024;

// Goes through pieces of the file, block by block. Thread safety: none.
class Scanner {
 public:
  Scanner(Queue& queue, Store& cowfile, const Head& head, const ScanOptions& options,
          const std::function<Result<void>(Range blocks)>& unmarked)
      : queue_(queue),
        cowfile_(cowfile),
        head_(head),
        options_(options),
        unmarked_(unmarked),
        buffer_(k_piece_blocks * k_block_bytes),
        bits_((k_piece_blocks / 8) + 1) {}

  // The blocks that `data`, a part of the file behind data_offset, touches, but for those that were looked at.
  [[nodiscard]] Result<void> scan(Range data) {
    next_ = std::max(next_, (data.offset - head_.data_offset) / k_block_bytes);
    const std::uint64_t end =
        std::min(head_.base_blocks, align_up(data.end() - head_.data_offset, k_block_bytes) / k_block_bytes);
    while (next_ < end) {
      const Range blocks{next_, std::min(k_piece_blocks, end - next_)};
      if (auto scanned = piece(blocks); !scanned) return scanned;
      next_ = blocks.end();
      if (options_.progress) options_.progress(next_ * k_block_bytes, head_.device_bytes());
    }
    return {};
  }

 private:
  [[nodiscard]] Result<void> piece(Range blocks) {
    const auto bytes = std::span(buffer_).first(blocks.length * k_block_bytes);
    const std::uint64_t at = block_at(head_, blocks.offset);
    if (const IoStatus read = read_or_zeros(queue_, cowfile_, at, bytes); !read.ok())
      return unreadable(blocks, {at, bytes.size()}, read);
    if (auto loaded = load_bits(blocks); !loaded) return loaded;
    Range run{blocks.offset, 0};
    for (std::uint64_t i = 0; i < blocks.length; ++i) {
      const std::uint64_t block = blocks.offset + i;
      const bool found =
          !is_set(bits_, block - bits_first_) && !all_zero(bytes.subspan(i * k_block_bytes, k_block_bytes));
      if (found && run.end() == block) {
        ++run.length;
        continue;
      }
      if (auto told = tell(run); !told) return told;
      run = {found ? block : block + 1, found ? 1U : 0U};
    }
    return tell(run);
  }
  [[nodiscard]] Result<void> tell(Range run) { return run.empty() ? Result<void>{} : unmarked_(run); }
  // What the file has not of its bitmap is clear.
  [[nodiscard]] Result<void> load_bits(Range blocks) {
    bits_first_ = blocks.offset / 8 * 8;
    const IoStatus read = read_or_zeros(queue_, cowfile_, k_bitmap_at + (blocks.offset / 8), bits_);
    if (read.ok()) return {};
    return std::unexpected(Error::from_errno(options_.what, cowfile_.describe(), read.error_number()));
  }
  [[nodiscard]] Result<void> unreadable(Range blocks, Range stored, IoStatus status) {
    const std::string why = fmt::format("blocks {} to {} can't be read: {}", blocks.offset, blocks.end() - 1,
                                        std::strerror(status.error_number()));
    if (options_.findings == nullptr) return std::unexpected(Error(options_.what, cowfile_.describe(), why));
    options_.findings->push_back({.gravity = Gravity::damage,
                                  .where = "blocks",
                                  .why = why,
                                  .stored = stored,
                                  .lost = {{blocks.offset * k_block_bytes, blocks.length * k_block_bytes}}});
    return {};
  }

  Queue& queue_;
  Store& cowfile_;
  const Head& head_;
  const ScanOptions& options_;
  const std::function<Result<void>(Range blocks)>& unmarked_;
  std::vector<std::byte> buffer_;
  std::vector<std::byte> bits_;
  std::uint64_t bits_first_ = 0;  // the block of their first bit
  std::uint64_t next_ = 0;        // block
};

}  // namespace

Result<void> scan_blocks(Queue& queue, Store& cowfile, const Head& head, const ScanOptions& options,
                         const std::function<Result<void>(Range blocks)>& unmarked) {
  const std::uint64_t end = std::min(cowfile.size(), head.file_bytes());
  if (end <= head.data_offset) return {};
  Scanner scanner(queue, cowfile, head, options, unmarked);
  DataPieces pieces(cowfile, {head.data_offset, end - head.data_offset});
  for (Range piece = pieces.next(); !piece.empty(); piece = pieces.next()) {
    if (auto scanned = scanner.scan(piece); !scanned) return scanned;
  }
  return {};
}

}  // namespace oxbow::cowloop
