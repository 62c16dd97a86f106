// SPDX-License-Identifier: Apache-2.0
#include "cli/findings.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace oxbow {
namespace {

// What identifies the structure beside its place.
std::string details(const Finding& finding) {
  std::string out;
  const auto add = [&](std::string text) { out += (out.empty() ? "" : ", ") + std::move(text); };
  if (!finding.stored.empty())
    add(fmt::format("bytes {} to {} of the file", finding.stored.offset, finding.stored.end() - 1));
  if (finding.sequence) add(fmt::format("sequence {}", *finding.sequence));
  if (finding.epoch) add(fmt::format("epoch {}", *finding.epoch));
  if (finding.flush) add(fmt::format("flush {}", *finding.flush));
  if (finding.checksum) {
    add(fmt::format("CRC {:#010x} stored, {:#010x} computed", finding.checksum->stored,
                    finding.checksum->computed));
  }
  return out;
}

}  // namespace

std::string lost_text(const Range& lost, std::uint32_t cluster_shift) {
  std::string out = fmt::format("bytes {} to {} of the device", lost.offset, lost.end() - 1);
  if (cluster_shift == 0) return out;
  const std::uint64_t first = lost.offset >> cluster_shift;
  const std::uint64_t last = (lost.end() - 1) >> cluster_shift;
  return out + (first == last ? fmt::format(" (cluster {})", first)
                              : fmt::format(" (clusters {} to {})", first, last));
}

std::string to_text(const Finding& finding, std::uint32_t cluster_shift) {
  std::string out = fmt::format("{}: {}: {}", name_of(finding.gravity), finding.where, finding.why);
  for (const Range& lost : finding.lost) {
    const char* const word = finding.where == "commit ring" ? "lost" : "cannot be read";
    if (!lost.empty()) out += fmt::format("; {}: {}", word, lost_text(lost, cluster_shift));
  }
  if (const std::string more = details(finding); !more.empty()) out += fmt::format(" [{}]", more);
  return out;
}

nlohmann::ordered_json to_json(const Finding& finding) {
  using Json = nlohmann::ordered_json;
  Json lost = Json::array();
  for (const Range& range : finding.lost) lost.push_back({{"start", range.offset}, {"length", range.length}});
  Json json{{"gravity", name_of(finding.gravity)},
            {"where", finding.where},
            {"why", finding.why},
            {"mendable", finding.mendable},
            {"lost", std::move(lost)}};
  if (!finding.stored.empty()) {
    json["file_start"] = finding.stored.offset;
    json["file_length"] = finding.stored.length;
  }
  if (finding.page) json["page"] = *finding.page;
  if (finding.slot) json["slot"] = *finding.slot;
  if (finding.sequence) json["sequence"] = *finding.sequence;
  if (finding.epoch) json["epoch"] = *finding.epoch;
  if (finding.flush) json["flush"] = *finding.flush;
  if (finding.checksum) {
    json["crc_stored"] = finding.checksum->stored;
    json["crc_computed"] = finding.checksum->computed;
  }
  return json;
}

}  // namespace oxbow
