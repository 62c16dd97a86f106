// SPDX-License-Identifier: Apache-2.0
#include "jobs/cowloop/cowfile_writer.h"

#include <algorithm>

#include "jobs/cowloop/open_cowfile.h"
#include "stores/blocking.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::cowloop {
namespace {

constexpr std::uint64_t k_piece_bytes = 64 << 10;

}  // namespace

CowfileWriter::CowfileWriter(Queue& queue, std::string what, Store& cowfile, const Head& head)
    : queue_(queue), what_(std::move(what)), cowfile_(cowfile), head_(head) {
  head_.used_blocks = 0;
  bits_.resize(std::min(k_piece_bytes, head_.map_bytes));
}

Result<void> CowfileWriter::outcome(IoStatus status) const {
  if (status.ok()) return {};
  return std::unexpected(Error::from_errno(what_, cowfile_.describe(), status.error_number()));
}

Result<void> CowfileWriter::grow(std::uint64_t size) {
  if (size <= cowfile_.size()) return {};
  return outcome(run_blocking(queue_, [&](Io& io) { return cowfile_.grow(io, size); }));
}

Result<void> CowfileWriter::add(std::uint64_t first, std::span<const std::byte> blocks) {
  if (auto marked = mark({first, blocks.size() / k_block_bytes}); !marked) return marked;
  const auto zero = [&](std::size_t at) { return all_zero(blocks.subspan(at, k_block_bytes)); };
  for (std::size_t at = 0; at < blocks.size();) {
    std::size_t end = at + k_block_bytes;
    if (!zero(at)) {
      while (end < blocks.size() && !zero(end)) end += k_block_bytes;
      const auto status =
          write_blocking(queue_, cowfile_, block_at(head_, first) + at, blocks.subspan(at, end - at));
      if (!status.ok()) return outcome(status);
    }
    at = end;
  }
  return {};
}

Result<void> CowfileWriter::add_zeros(Range blocks) { return mark(blocks); }

// Whoever reads a block that is marked finds the file long enough.
Result<void> CowfileWriter::mark(Range blocks) {
  if (blocks.empty()) return {};
  if (auto grown = grow(block_at(head_, blocks.end())); !grown) return grown;
  head_.used_blocks += blocks.length;
  while (!blocks.empty()) {
    const std::uint64_t at = blocks.offset / 8 / k_piece_bytes * k_piece_bytes;
    if (at != bits_at_) {
      if (auto flushed = flush_bits(); !flushed) return flushed;
      bits_at_ = at;
      bits_.assign(std::min(k_piece_bytes, head_.map_bytes - at), std::byte{0});
    }
    const Range here = blocks.prefix(((at + bits_.size()) * 8) - blocks.offset);
    for (std::uint64_t block = here.offset; block < here.end(); ++block) set(bits_, block - (at * 8));
    bits_dirty_ = true;
    blocks = blocks.without_prefix(here.length);
  }
  return {};
}

Result<void> CowfileWriter::flush_bits() {
  if (!bits_dirty_) return {};
  bits_dirty_ = false;
  return outcome(write_blocking(queue_, cowfile_, k_bitmap_at + bits_at_, bits_));
}

Result<Head> CowfileWriter::finish() {
  auto done = grow(k_bitmap_at + head_.map_bytes);
  if (done) done = flush_bits();
  if (done) done = write_head(queue_, what_, cowfile_, head_);
  if (!done) return std::unexpected(done.error());
  return head_;
}

}  // namespace oxbow::cowloop
