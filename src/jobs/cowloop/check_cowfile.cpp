// SPDX-License-Identifier: Apache-2.0
#include "jobs/cowloop/check_cowfile.h"

#include <fmt/format.h>

#include <algorithm>

#include "jobs/cowloop/open_cowfile.h"
#include "jobs/cowloop/packed_source.h"
#include "jobs/cowloop/scan_blocks.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::cowloop {
namespace {

constexpr const char* k_what = "cannot check cowfile";
constexpr const char* k_info_what = "cannot show cowfile";

void add(std::vector<Finding>& findings, Gravity gravity, std::string where, std::string why, Range stored,
         bool mendable) {
  findings.push_back({.gravity = gravity,
                      .where = std::move(where),
                      .why = std::move(why),
                      .stored = stored,
                      .mendable = mendable});
}

void check_head_state(const Head& head, std::vector<Finding>& findings) {
  const Range block{0, k_block_bytes};
  if (head.merging)
    add(findings, Gravity::damage, "head",
        "a merge into its read-only file was begun and is not finished: resume it with oxbow merge", block,
        false);
  if (head.kept_in_order()) {
    add(findings, Gravity::note, "head",
        "it was not closed, but its bitmap was kept in order: it needs no repair", block, true);
  } else if (head.dirty) {
    add(findings, Gravity::damage, "head", "it is dirty: its bitmap may lack blocks that were written", block,
        true);
  }
}

void check_survey(const BitmapSurvey& survey, const Head& head, std::uint64_t file_bytes,
                  std::vector<Finding>& findings) {
  const Range bitmap{k_bitmap_at, head.map_bytes};
  if (file_bytes < bitmap.end())
    add(findings, Gravity::damage, "bitmap",
        fmt::format("the file ends at byte {}, and with mapsize {} it reaches to byte {}", file_bytes,
                    head.map_bytes, bitmap.end()),
        bitmap, true);
  if (!head.dirty && survey.used != head.used_blocks)
    add(findings, Gravity::damage, "head",
        fmt::format("cowused is {}, and {} bits of the bitmap are set", head.used_blocks, survey.used),
        {0, k_block_bytes}, true);
  if (survey.beyond)
    add(findings, Gravity::damage, "bitmap",
        fmt::format("bit {} is set, and rdoblocks is {}", *survey.beyond, head.base_blocks), bitmap, true);
  if (survey.missing_count == 0) return;
  Finding finding{
      .gravity = Gravity::damage,
      .where = "blocks",
      .why = fmt::format("the file ends at byte {}, and {} blocks that its bitmap names lie beyond",
                         file_bytes, survey.missing_count)};
  if (survey.missing)
    finding.lost = {{*survey.missing * k_block_bytes, (head.base_blocks - *survey.missing) * k_block_bytes}};
  findings.push_back(std::move(finding));
}

Result<void> check_against(Queue& queue, const OpenedCowfile& opened, const std::string& path,
                           std::vector<Finding>& findings) {
  const auto base = open_base(k_what, path, Use::read);
  if (!base) return std::unexpected(base.error());
  if (auto distinct = check_distinct(k_what, *opened.store, **base); !distinct) return distinct;
  const auto checked = check_base(queue, k_what, *opened.store, opened.head, **base);
  if (!checked) add(findings, Gravity::damage, "head", checked.error().why(), {0, k_block_bytes}, false);
  return {};
}

Result<CowfileInfo> gzip_info(Queue& queue, const std::string& path) {
  auto store = FileStore::open(path, {});
  if (!store) return std::unexpected(Error(k_info_what, path, store.error().why()));
  CowfileInfo info{.path = path, .gzip = true, .file_bytes = (*store)->size()};
  info.allocated_bytes = (*store)->facts().allocated_bytes.value_or(info.file_bytes);
  GzipSource source(queue, k_info_what, *store);
  auto head = read_packed_head(k_info_what, path, source);
  if (!head) return std::unexpected(head.error());
  info.head = *head;
  return info;
}

}  // namespace

bool CowfileCheck::damaged() const noexcept {
  return std::ranges::any_of(findings, [](const Finding& each) { return each.gravity == Gravity::damage; });
}

Result<CowfileInfo> cowfile_info(Queue& queue, const std::string& path) {
  if (kind_of_file(queue, path) == FileKind::gzip) return gzip_info(queue, path);
  const auto opened = open_cowfile(queue, k_info_what, path, Use::look);
  if (!opened) return std::unexpected(opened.error());
  CowfileInfo info{.path = path, .head = opened->head, .file_bytes = opened->store->size()};
  info.allocated_bytes = opened->store->facts().allocated_bytes.value_or(info.file_bytes);
  const auto survey = survey_bitmap(queue, k_info_what, *opened->store, info.head);
  if (!survey) return std::unexpected(survey.error());
  info.survey = *survey;
  if (auto checked = check_length(k_info_what, *opened->store, info.head); !checked) {
    info.contradiction = checked.error().why();
  } else {
    info.contradiction = contradiction(info.survey, info.head, info.file_bytes);
  }
  return info;
}

Result<CowfileCheck> check_cowfile(Queue& queue, const std::string& path, const CheckOptions& options) {
  const auto opened = open_cowfile(queue, k_what, path, Use::read);
  if (!opened) return std::unexpected(opened.error());
  CowfileCheck check{.head = opened->head};
  const auto survey = survey_bitmap(queue, k_what, *opened->store, check.head);
  if (!survey) return std::unexpected(survey.error());
  check.used = survey->used;
  check_head_state(check.head, check.findings);
  check_survey(*survey, check.head, opened->store->size(), check.findings);
  if (options.base) {
    if (auto against = check_against(queue, *opened, *options.base, check.findings); !against)
      return std::unexpected(against.error());
  }
  if (!options.data || check.head.packed) return check;
  const auto scanned =
      scan_blocks(queue, *opened->store, check.head,
                  {.what = k_what, .findings = &check.findings, .progress = options.progress},
                  [&](Range run) -> Result<void> {
                    check.unmarked += run.length;
                    return {};
                  });
  if (!scanned) return std::unexpected(scanned.error());
  return check;
}

}  // namespace oxbow::cowloop
