// SPDX-License-Identifier: Apache-2.0
#include "targets/cowloop/pair_checks.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "formats/cowloop/fingerprint.h"
#include "stores/blocking.h"
#include "stores/data_pieces.h"
#include "targets/cowloop/bitmap_survey.h"

namespace oxbow::cowloop {
namespace {

constexpr std::uint64_t k_piece_bytes = 64 << 10;

std::unexpected<Error> refuse(const std::string& what, const Store& store, std::string why) {
  return std::unexpected(Error(what, store.describe(), std::move(why)));
}

// Feeds the blocks that `data`, a part of the file, touches, from block `next` to `end`; `next` moves behind them.
IoStatus feed_data(Queue& queue, Store& base, Range data, std::uint64_t end, std::uint64_t& next,
                   Fingerprint& fingerprint) {
  std::vector<std::byte> buffer(k_piece_bytes);
  next = std::max(next, data.offset / k_block_bytes);
  end = std::min(end, align_up(data.end(), k_block_bytes) / k_block_bytes);
  while (next < end && !fingerprint.done()) {
    const std::uint64_t count = std::min(k_piece_bytes / k_block_bytes, end - next);
    const auto piece = std::span(buffer).first(count * k_block_bytes);
    if (const IoStatus read = read_blocking(queue, base, next * k_block_bytes, piece); !read.ok())
      return read;
    for (std::uint64_t i = 0; i < count; ++i)
      fingerprint.add(piece.subspan(i * k_block_bytes, k_block_bytes));
    next += count;
  }
  return {};
}

// Feeds those of `blocks` that don't lie in holes.
Result<void> feed_blocks(Queue& queue, const std::string& what, Store& base, Range blocks,
                         Fingerprint& fingerprint) {
  std::uint64_t next = blocks.offset;
  DataPieces pieces(base, {blocks.offset * k_block_bytes, blocks.length * k_block_bytes});
  while (!fingerprint.done()) {
    const Range piece = pieces.next();
    if (piece.empty()) break;
    if (const IoStatus read = feed_data(queue, base, piece, blocks.end(), next, fingerprint); !read.ok())
      return std::unexpected(Error::from_errno(what, base.describe(), read.error_number()));
  }
  return {};
}

}  // namespace

Result<void> check_regular(const std::string& what, const FileStore& cowfile) {
  if (!cowfile.identity().block_device) return {};
  return refuse(what, cowfile, "it is a block device, and a cowfile is a regular file");
}

Result<Head> read_head(Queue& queue, const std::string& what, Store& cowfile) {
  std::array<std::byte, k_block_bytes> block{};
  const std::uint64_t there = std::min<std::uint64_t>(cowfile.size(), block.size());
  if (const IoStatus read = read_blocking(queue, cowfile, 0, std::span(block).first(there)); !read.ok())
    return std::unexpected(Error::from_errno(what, cowfile.describe(), read.error_number()));
  if (there < block.size() && (there == 0 || has_magic(block)))
    return refuse(what, cowfile,
                  fmt::format("it has {} bytes, and the head of a cowfile has {}", there, block.size()));
  auto head = parse(block);
  if (!head) return refuse(what, cowfile, head.error().text);
  return *head;
}

Result<void> check_length(const std::string& what, Store& cowfile, const Head& head) {
  const std::uint64_t bitmap_end = k_bitmap_at + head.map_bytes;
  if (cowfile.size() < bitmap_end)
    return refuse(what, cowfile,
                  fmt::format("it ends at byte {}, and its bitmap of mapsize {} reaches to byte {}",
                              cowfile.size(), head.map_bytes, bitmap_end));
  if (!head.packed || head.dirty || head.used_blocks == 0) return {};
  const std::uint64_t blocks_end = head.data_offset + (head.used_blocks * k_block_bytes);
  if (cowfile.size() >= blocks_end) return {};
  return refuse(what, cowfile,
                fmt::format("it ends at byte {}, and its {} packed blocks (cowused) reach to byte {}",
                            cowfile.size(), head.used_blocks, blocks_end));
}

Result<void> check_state(const std::string& what, const Store& cowfile, const Head& head, IfDirty if_dirty,
                         const std::string& way_out) {
  if (head.merging)
    return refuse(
        what, cowfile,
        "a merge into its read-only file was begun and is not finished: resume it with oxbow merge");
  if (head.packed)
    return refuse(what, cowfile, "it is packed: oxbow unpack makes a cowfile of it that can be used");
  if (!head.dirty || head.kept_in_order() || if_dirty == IfDirty::accept) return {};
  return refuse(
      what, cowfile,
      "it is dirty: it was not closed, and its bitmap may lack blocks that were written; " + way_out);
}

Result<std::uint64_t> base_blocks(const std::string& what, const Store& base, Layout layout) {
  const std::uint64_t blocks = blocks_of(base.size());
  if (blocks == 0) {
    return refuse(what, base,
                  base.size() == 0 ? "the read-only file is empty"
                                   : fmt::format("the read-only file has {} bytes, less than a block of {}",
                                                 base.size(), k_block_bytes));
  }
  if (blocks > k_most_blocks)
    return refuse(what, base,
                  fmt::format("the read-only file has {} blocks, and a cowfile can have {} at the most",
                              blocks, k_most_blocks));
  if (layout == Layout::bytes_4 && blocks > k_most_blocks_4)
    return refuse(
        what, base,
        fmt::format("the read-only file has {} bytes, and a cowfile of the 32-bit layout can only be of less "
                    "than 4 TiB",
                    base.size()));
  return blocks;
}

Result<std::uint32_t> fingerprint_of(Queue& queue, const std::string& what, Store& base) {
  Fingerprint fingerprint;
  if (auto fed = feed_blocks(queue, what, base, {0, blocks_of(base.size())}, fingerprint); !fed)
    return std::unexpected(fed.error());
  return fingerprint.value();
}

Result<std::uint32_t> fingerprint_of_rest(Queue& queue, const std::string& what, Store& base, Store& cowfile,
                                          const Head& head) {
  Fingerprint fingerprint;
  RunReader runs(queue, what, cowfile, head);
  std::uint64_t next = 0;
  while (next < head.base_blocks && !fingerprint.done()) {
    const auto run = runs.next();
    if (!run) return std::unexpected(run.error());
    const std::uint64_t end = run->empty() ? head.base_blocks : std::min(run->offset, head.base_blocks);
    if (auto fed = feed_blocks(queue, what, base, {next, end - next}, fingerprint); !fed)
      return std::unexpected(fed.error());
    next = run->empty() ? head.base_blocks : run->end();
  }
  return fingerprint.value();
}

Result<void> check_base(Queue& queue, const std::string& what, Store& cowfile, const Head& head,
                        Store& base) {
  const auto blocks = base_blocks(what, base, Layout::bytes_8);
  if (!blocks) return std::unexpected(blocks.error());
  if (*blocks != head.base_blocks)
    return refuse(what, cowfile,
                  fmt::format("its rdoblocks is {}, and the read-only file {} has {} blocks of {} bytes",
                              head.base_blocks, base.describe(), *blocks, k_block_bytes));
  const auto found = head.merging ? fingerprint_of_rest(queue, what, base, cowfile, head)
                                  : fingerprint_of(queue, what, base);
  if (!found) return std::unexpected(found.error());
  const std::uint32_t wanted = head.merging.value_or(head.fingerprint);
  if (*found == wanted) return {};
  return refuse(
      what, cowfile,
      fmt::format("its {} is {:#010x}, and that of the read-only file {} is {:#010x}: it is not the file "
                  "that the cowfile belongs to, or it was changed",
                  head.merging ? "fingerprint of the blocks that it doesn't have" : "rdofingerprint", wanted,
                  base.describe(), *found));
}

Result<void> write_head(Queue& queue, const std::string& what, Store& cowfile, const Head& head) {
  std::array<std::byte, k_block_bytes> block{};
  encode(head, block);
  const IoStatus written = write_blocking(queue, cowfile, 0, block);
  if (written.ok()) return {};
  return std::unexpected(Error::from_errno(what, cowfile.describe(), written.error_number()));
}

Result<void> write_fresh(Queue& queue, const std::string& what, Store& cowfile, const Head& head) {
  const IoStatus grown =
      run_blocking(queue, [&](Io& io) { return cowfile.grow(io, k_bitmap_at + head.map_bytes); });
  if (!grown.ok()) return std::unexpected(Error::from_errno(what, cowfile.describe(), grown.error_number()));
  return write_head(queue, what, cowfile, head);
}

}  // namespace oxbow::cowloop
