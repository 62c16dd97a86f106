// SPDX-License-Identifier: Apache-2.0
#include "jobs/check_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "jobs/check_layer.h"
#include "jobs/check_parts.h"
#include "stores/blocking.h"
#include "stores/open_stores.h"
#include "targets/cow/open_layer.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_piece_bytes = 1 << 20;
constexpr std::uint64_t k_unit_bytes = 4096;  // how finely an error is told

unsigned state_of(const native::StatePage& page, std::uint64_t cluster) {
  const std::uint64_t in_leaf = cluster % native::k_clusters_per_leaf;
  const std::uint64_t word = page.leaves[cluster / native::k_clusters_per_leaf][in_leaf / 32];
  return static_cast<unsigned>(word >> (2 * (in_leaf % 32)) & 3);
}

// The parts of the device that the layer itself has, bytes.
Result<std::vector<Range>> own_data(Queue& queue, Store& layer, const RawHead& raw) {
  const native::Superblock& s = raw.head.superblock;
  std::vector<Range> data;
  const std::uint64_t clusters = native::cluster_count(s.size, s.cluster_shift);
  auto scanned =
      scan_pages(queue, layer, s, [&](std::uint64_t index, const PageSlots& slots) -> Result<void> {
        const PageVerdict verdict = judge_page(index, slots, raw);
        if (verdict.content.damaged || verdict.content.empty) return {};
        const std::uint64_t first = index * native::k_clusters_per_page;
        for (std::uint64_t i = 0; i < native::k_clusters_per_page && first + i < clusters; ++i) {
          if (state_of(verdict.content.page, i) != 3) continue;
          const std::uint64_t at = (first + i) << s.cluster_shift;
          const std::uint64_t length = std::min(std::uint64_t{1} << s.cluster_shift, s.size - at);
          if (!data.empty() && data.back().end() == at) {
            data.back().length += length;
          } else {
            data.push_back({at, length});
          }
        }
        return {};
      });
  if (!scanned) return std::unexpected(scanned.error());
  return data;
}

// Reads data and tells what cannot be read. Thread safety: none.
class DataReader {
 public:
  DataReader(Queue& queue, Store& layer, std::uint64_t data_offset)
      : queue_(queue), layer_(layer), data_offset_(data_offset), buffer_(k_piece_bytes) {}

  void read(Range piece, std::vector<Finding>& findings) {
    if (status_of(piece).ok()) return;
    for (std::uint64_t at = piece.offset; at < piece.end(); at += k_unit_bytes) {
      const Range unit{at, std::min(k_unit_bytes, piece.end() - at)};
      if (const IoStatus status = status_of(unit); !status.ok()) tell(unit, status, findings);
    }
  }

 private:
  [[nodiscard]] IoStatus status_of(Range range) {
    return read_blocking(queue_, layer_, data_offset_ + range.offset, std::span(buffer_).first(range.length));
  }
  void tell(Range unit, IoStatus status, std::vector<Finding>& findings) const {
    const std::string why = fmt::format("it cannot be read: {}", std::strerror(status.error_number()));
    Finding* last = findings.empty() ? nullptr : &findings.back();
    if (last != nullptr && last->where == "data" && last->why == why &&
        last->lost.back().end() == unit.offset) {
      last->lost.back().length += unit.length;
      last->stored.length += unit.length;
      return;
    }
    findings.push_back(
        {.where = "data", .why = why, .stored = {data_offset_ + unit.offset, unit.length}, .lost = {unit}});
  }

  Queue& queue_;
  Store& layer_;
  std::uint64_t data_offset_;
  std::vector<std::byte> buffer_;
};

Result<void> read_data(Queue& queue, Store& layer, const RawHead& raw, const TellProgress& progress,
                       std::vector<Finding>& findings) {
  const auto data = own_data(queue, layer, raw);
  if (!data) return std::unexpected(data.error());
  std::uint64_t total = 0;
  for (const Range& each : *data) total += each.length;
  DataReader reader(queue, layer, raw.head.superblock.data_offset);
  std::uint64_t done = 0;
  for (Range rest : *data) {
    while (!rest.empty()) {
      const Range piece = rest.prefix(k_piece_bytes);
      reader.read(piece, findings);
      rest = rest.without_prefix(piece.length);
      done += piece.length;
      if (progress) progress(done, total);
    }
  }
  return {};
}

// The base of a layer against the SHA-256 that the layer recorded.
Result<void> compare_hash(OpenContext& context, const std::string& base_path, const native::Superblock& s,
                          const TellProgress& progress, std::vector<Finding>& findings) {
  if ((s.base.flags & native::k_base_has_sha256) == 0) return {};
  const auto base = describe_base(context, base_path, s.base.kind, s.uuid);
  if (!base) return std::unexpected(base.error());
  const auto hash = hash_base(context.queue, base->target, base_path, progress);
  if (!hash) return std::unexpected(hash.error());
  if (*hash == s.base.sha256) return {};
  findings.push_back({.where = fmt::format("base {}", base_path),
                      .why = fmt::format("its SHA-256 is {}, it was {} when the layer was made",
                                         to_text(*hash), to_text(s.base.sha256))});
  return {};
}

// One layer of the chain; `store` is open.
Result<void> check_link(OpenContext& context, Store& store, const DataOptions& options,
                        native::Superblock& superblock, std::vector<Finding>& findings) {
  const auto raw = read_raw_head(context.queue, store);
  if (!raw) return std::unexpected(raw.error());
  if (raw->unusable) return std::unexpected(*raw->unusable);
  superblock = raw->head.superblock;
  if (raw->in_use()) {
    return std::unexpected(
        Error("cannot check data", store.describe(),
              "it was not closed cleanly, and opening its chain would recover it; oxbow repair "
              "does"));
  }
  return read_data(context.queue, store, *raw, options.progress, findings);
}

}  // namespace

Result<void> read_layer_data(Queue& queue, Store& layer, const TellProgress& progress,
                             std::vector<Finding>& findings) {
  const auto raw = read_raw_head(queue, layer);
  if (!raw) return std::unexpected(raw.error());
  if (raw->unusable || !raw->metadata_there) return {};
  return read_data(queue, layer, *raw, progress, findings);
}

Result<std::vector<Finding>> check_data(Queue& queue, const std::string& path, const DataOptions& options) {
  OpenStores stores;
  OpenContext context{
      .queue = queue, .stores = stores, .accept_base = options.accept_base, .bases = options.bases};
  std::vector<Finding> all;
  std::string at = path;
  for (bool first = true;; first = false) {
    const auto store = stores.open_file(at, {.lock = LockMode::shared});
    if (!store) return std::unexpected(store.error());
    std::vector<Finding> findings;
    const auto report = check_layer(queue, **store);
    if (!report) return std::unexpected(report.error());
    if (!first) findings = report->findings;  // the first one's are told already
    native::Superblock superblock{};
    if (auto checked = check_link(context, **store, options, superblock, findings); !checked)
      return std::unexpected(checked.error());
    // The chain from here on, as serving it does: this says whether the base may be opened, and is the right one.
    if (first) {
      if (auto opened = open_layer(context, at); !opened) return std::unexpected(opened.error());
    }
    const std::string base = resolve_base_path(at, native::base_path(superblock));
    if (superblock.base.kind != native::BaseKind::none) {
      if (auto same = compare_hash(context, base, superblock, options.progress, findings); !same)
        return std::unexpected(same.error());
    }
    for (Finding& finding : findings) {
      if (!first) finding.where.insert(0, at + ": ");
      all.push_back(std::move(finding));
    }
    if (superblock.base.kind != native::BaseKind::layer) return all;
    at = base;
  }
}

}  // namespace oxbow
