// SPDX-License-Identifier: Apache-2.0
#include "targets/cowloop/bitmap_survey.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "stores/blocking.h"

namespace oxbow::cowloop {
namespace {

constexpr std::uint64_t k_piece_bytes = 1 << 20;

// The bitmap in the file, as far as the file reaches.
Range bitmap_range(const Store& cowfile, const Head& head) {
  const std::uint64_t end = std::min(cowfile.size(), k_bitmap_at + head.map_bytes);
  return {k_bitmap_at, end - std::min(end, k_bitmap_at)};
}

}  // namespace

RunReader::RunReader(Queue& queue, std::string what, Store& cowfile, const Head& head)
    : queue_(queue),
      what_(std::move(what)),
      cowfile_(cowfile),
      pieces_(cowfile, bitmap_range(cowfile, head)) {}

// The next piece. False at the end.
Result<bool> RunReader::load() {
  if (left_.empty()) left_ = pieces_.next();
  const Range data = left_.prefix(std::min(left_.length, k_piece_bytes));
  left_ = left_.without_prefix(data.length);
  piece_.resize(data.length);
  first_block_ = (data.offset - k_bitmap_at) * 8;
  from_ = 0;
  if (data.empty()) return false;
  const IoStatus read = read_blocking(queue_, cowfile_, data.offset, piece_);
  if (read.ok()) return true;
  return std::unexpected(Error::from_errno(what_, cowfile_.describe(), read.error_number()));
}

Result<Range> RunReader::next() {
  while (true) {
    const Range run = next_run(piece_, from_);
    if (!run.empty()) {
      from_ = run.end();
      return Range{first_block_ + run.offset, run.length};
    }
    const auto loaded = load();
    if (!loaded) return std::unexpected(loaded.error());
    if (!*loaded) return Range{};
  }
}

Result<void> for_each_run(Queue& queue, const std::string& what, Store& cowfile, const Head& head,
                          const std::function<Result<void>(Range blocks)>& visit) {
  RunReader runs(queue, what, cowfile, head);
  while (true) {
    const auto run = runs.next();
    if (!run) return std::unexpected(run.error());
    if (run->empty()) return {};
    if (auto visited = visit(*run); !visited) return visited;
  }
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
