// SPDX-License-Identifier: Apache-2.0
#include "jobs/check_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "jobs/check_parts.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_low_bits = 0x5555'5555'5555'5555;

void count_clusters(const native::StatePage& page, CheckReport& report) {
  for (const native::LeafWords& leaf : page.leaves) {
    for (const std::uint64_t word : leaf) {
      const std::uint64_t high = (word >> 1) & k_low_bits;
      report.data_clusters += static_cast<std::uint64_t>(std::popcount(high));
      report.zero_clusters += static_cast<std::uint64_t>(std::popcount(word & k_low_bits & ~high));
    }
  }
}

// The parts of the device whose data would lie beyond the end of a file that was cut short.
void add_cut_off(const native::StatePage& page, std::uint64_t index, const native::Superblock& s,
                 std::uint64_t file_bytes, std::vector<Range>& lost) {
  const std::uint64_t clusters = native::cluster_count(s.size, s.cluster_shift);
  const std::uint64_t cluster_bytes = std::uint64_t{1} << s.cluster_shift;
  const std::uint64_t there = (file_bytes - s.data_offset) >> s.cluster_shift;  // wholly
  const std::uint64_t first = index * native::k_clusters_per_page;
  for (std::uint64_t i = 0; i < native::k_clusters_per_page && first + i < clusters; ++i) {
    const std::uint64_t in_leaf = i % native::k_clusters_per_leaf;
    const std::uint64_t word = page.leaves[i / native::k_clusters_per_leaf][in_leaf / 32];
    if (first + i < there || (word >> (2 * (in_leaf % 32)) & 3) != 3) continue;
    const Range cluster = Range{(first + i) << s.cluster_shift, cluster_bytes}.prefix(
        s.size - ((first + i) << s.cluster_shift));
    if (!lost.empty() && lost.back().end() == cluster.offset) {
      lost.back().length += cluster.length;
    } else {
      lost.push_back(cluster);
    }
  }
}

void check_length(const RawHead& raw, std::uint64_t file_bytes, std::vector<Range> lost,
                  CheckReport& report) {
  if (!raw.truncated) return;
  const native::Superblock& s = report.superblock;
  const std::uint64_t needed = native::file_bytes(s);
  Finding finding{
      .where = "file",
      .why = fmt::format("it is truncated: {} bytes long, its superblock says {}", file_bytes, needed),
      .stored = {file_bytes, needed - file_bytes},
      .lost = std::move(lost)};
  if (!raw.metadata_there) {
    finding.why += "; state pages are cut off, so what is left of the data cannot be told";
    finding.lost = {{0, s.size}};
  } else if (finding.lost.empty()) {
    finding.why += "; no data was in what is missing";
    finding.mendable = true;
  }
  report.findings.push_back(std::move(finding));
}

// Pages of a later epoch than the superblock's show that the copy that is bad was the newer one.
void doubt_superblocks(const PageFacts& facts, std::vector<Finding>& findings) {
  if (!facts.foreign_epoch) return;
  for (Finding& finding : findings) {
    if (!finding.where.starts_with("superblock copy") || !finding.mendable) continue;
    finding.gravity = Gravity::damage;
    finding.mendable = false;
    finding.why += fmt::format("; but it was the newer one: state pages of epoch {} were written after it",
                               facts.highest_epoch);
  }
}

}  // namespace

bool CheckReport::damaged() const noexcept {
  return std::ranges::find(findings, Gravity::damage, &Finding::gravity) != findings.end();
}

bool CheckReport::redundancy_lost() const noexcept {
  return !damaged() && std::ranges::find(findings, Gravity::redundancy, &Finding::gravity) != findings.end();
}

Result<CheckReport> check_layer(Queue& queue, Store& layer) {
  auto raw = read_raw_head(queue, layer);
  if (!raw) return std::unexpected(raw.error());
  CheckReport report;
  check_superblocks(*raw, report.findings);
  if (raw->unusable) {
    report.unusable = raw->unusable;
    return report;
  }
  report.superblock = raw->head.superblock;
  if (!raw->metadata_there) {
    check_length(*raw, layer.size(), {}, report);
    return report;
  }
  check_holder(queue, layer, *raw, report.findings);
  check_records(*raw, report.findings);
  PageFacts facts;
  std::vector<Range> cut_off;
  const auto scanned = scan_pages(
      queue, layer, report.superblock, [&](std::uint64_t index, const PageSlots& slots) -> Result<void> {
        const PageVerdict verdict = judge_page(index, slots, *raw);
        ++report.pages_checked;
        check_page(index, slots, verdict, *raw, facts, report.findings);
        if (verdict.content.damaged || verdict.content.empty) return {};
        count_clusters(verdict.content.page, report);
        if (raw->truncated)
          add_cut_off(verdict.content.page, index, report.superblock, layer.size(), cut_off);
        return {};
      });
  if (!scanned) return std::unexpected(scanned.error());
  check_records_against(facts, *raw, report.findings);
  report.ring_records = check_ring(queue, layer, *raw, facts, report.findings);
  doubt_superblocks(facts, report.findings);
  check_length(*raw, layer.size(), std::move(cut_off), report);
  return report;
}

}  // namespace oxbow
