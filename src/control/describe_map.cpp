// SPDX-License-Identifier: Apache-2.0
#include "control/describe_map.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

#include "device/device.h"
#include "jobs/map_device.h"
#include "oxbow/range.h"

namespace oxbow::control {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t k_most_extents = 4096;  // in one answer

// What the file that says what is there is called; empty where no file does. From the table and not from the store,
// which may have been closed by the time it is asked.
std::string file_of(const std::vector<TargetLine>& lines, const MappedExtent& extent) {
  const auto after =
      std::ranges::upper_bound(lines, extent.range.offset / k_sector_bytes, {}, &TargetLine::start);
  if (after == lines.begin()) return {};
  const std::vector<ChainPart>& chain = (after - 1)->chain;
  return extent.layer < chain.size() ? chain[extent.layer].store.name : std::string();
}

}  // namespace

Result<Json> describe_map(Queue& queue, const ServedDevice& device, std::uint64_t start) {
  const std::vector<TargetLine> lines = device.device->target()->lines();
  Json extents = Json::array();
  std::uint64_t next = start;
  const auto mapped =
      map_device_from(queue, *device.device, start, [&](const MappedExtent& extent) -> Result<bool> {
        extents.push_back({{"start", extent.range.offset},
                           {"length", extent.range.length},
                           {"state", state_word(extent)},
                           {"reads", word(extent.kind)},
                           {"layer", extent.layer},
                           {"file", file_of(lines, extent)}});
        next = extent.range.end();
        return extents.size() < k_most_extents;
      });
  if (!mapped) return std::unexpected(mapped.error());
  const bool more = next < device.device->size();
  return Json{
      {"name", device.name}, {"extents", std::move(extents)}, {"next", more ? Json(next) : Json(nullptr)}};
}

}  // namespace oxbow::control
