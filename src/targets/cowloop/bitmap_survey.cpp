// SPDX-License-Identifier: Apache-2.0
#include "targets/cowloop/bitmap_survey.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "stores/blocking.h"

namespace oxbow::cowloop {
namespace {

constexpr std::uint64_t k_piece_bytes = 1 << 20;

// The bytes of `data`, a part of the file that lies in the bitmap.
Result<void> read_data(Queue& queue, const std::string& what, Store& cowfile, Range data,
                       std::vector<std::byte>& buffer, const VisitBits& visit) {
  while (!data.empty()) {
    const Range piece = data.prefix(k_piece_bytes);
    buffer.resize(piece.length);
    if (const IoStatus read = read_blocking(queue, cowfile, piece.offset, buffer); !read.ok())
      return std::unexpected(Error::from_errno(what, cowfile.describe(), read.error_number()));
    if (auto visited = visit((piece.offset - k_bitmap_at) * 8, buffer); !visited) return visited;
    data = data.without_prefix(piece.length);
  }
  return {};
}

}  // namespace

Result<void> read_bitmap(Queue& queue, const std::string& what, Store& cowfile, const Head& head,
                         const VisitBits& visit) {
  const std::uint64_t end = std::min(cowfile.size(), k_bitmap_at + head.map_bytes);
  if (end <= k_bitmap_at) return {};
  std::vector<std::byte> buffer;
  Range rest{k_bitmap_at, end - k_bitmap_at};
  while (!rest.empty()) {
    Extents extents;
    const std::uint64_t covered = cowfile.extents(rest, extents);
    std::uint64_t at = rest.offset;
    for (const Extent& extent : extents) {
      const Range data{at, extent.length};
      at += extent.length;
      if (extent.kind == Kind::zero) continue;
      if (auto read = read_data(queue, what, cowfile, data, buffer, visit); !read) return read;
    }
    rest = rest.without_prefix(covered);
  }
  return {};
}

Result<void> for_each_run(Queue& queue, const std::string& what, Store& cowfile, const Head& head,
                          const std::function<Result<void>(Range blocks)>& visit) {
  return read_bitmap(queue, what, cowfile, head,
                     [&](std::uint64_t first_block, std::span<const std::byte> bits) -> Result<void> {
                       for (Range run = next_run(bits, 0); !run.empty(); run = next_run(bits, run.end())) {
                         if (auto visited = visit({first_block + run.offset, run.length}); !visited)
                           return visited;
                       }
                       return {};
                     });
}

Result<BitmapSurvey> survey_bitmap(Queue& queue, const std::string& what, Store& cowfile, const Head& head) {
  BitmapSurvey survey;
  const std::uint64_t data_bytes = cowfile.size() - std::min(cowfile.size(), head.data_offset);
  // Of packed files it is the number of blocks that counts, not where they belong.
  const std::uint64_t there = head.packed ? head.base_blocks : data_bytes / k_block_bytes;
  const auto surveyed = for_each_run(queue, what, cowfile, head, [&](Range run) -> Result<void> {
    if (run.end() > head.base_blocks && !survey.beyond)
      survey.beyond = std::max(run.offset, head.base_blocks);
    const std::uint64_t end = std::min(run.end(), head.base_blocks);
    if (run.offset >= end) return {};
    survey.used += end - run.offset;
    if (end <= there) return {};
    const std::uint64_t first = std::max(run.offset, there);
    if (!survey.missing) survey.missing = first;
    survey.missing_count += end - first;
    return {};
  });
  if (!surveyed) return std::unexpected(surveyed.error());
  if (head.packed && survey.used > data_bytes / k_block_bytes) {
    survey.missing_count = survey.used - (data_bytes / k_block_bytes);
  }
  return survey;
}

std::optional<std::string> contradiction(const BitmapSurvey& survey, const Head& head,
                                         std::uint64_t file_bytes) {
  if (survey.beyond)
    return fmt::format("bit {} of its bitmap is set, and its rdoblocks is {}", *survey.beyond,
                       head.base_blocks);
  if (!head.dirty && survey.used != head.used_blocks)
    return fmt::format("its cowused is {}, and {} bits of its bitmap are set", head.used_blocks, survey.used);
  if (survey.missing)
    return fmt::format(
        "it ends at byte {}, and its bitmap says that it has block {}, which reaches to byte {}", file_bytes,
        *survey.missing, block_at(head, *survey.missing) + k_block_bytes);
  if (survey.missing_count > 0)
    return fmt::format("it ends at byte {}, and the {} packed blocks that its bitmap names reach to byte {}",
                       file_bytes, survey.used, head.data_offset + (survey.used * k_block_bytes));
  return std::nullopt;
}

Result<void> check_bitmap(Queue& queue, const std::string& what, Store& cowfile, const Head& head) {
  if (head.map_bytes > k_counted_at_open_bytes) return {};
  const auto survey = survey_bitmap(queue, what, cowfile, head);
  if (!survey) return std::unexpected(survey.error());
  if (auto why = contradiction(*survey, head, cowfile.size()))
    return std::unexpected(Error(what, cowfile.describe(), std::move(*why)));
  return {};
}

}  // namespace oxbow::cowloop
