// SPDX-License-Identifier: Apache-2.0
#include "exports/ublk/parameters.h"

#include <algorithm>
#include <bit>

#include "device/device.h"
#include "targets/target.h"

namespace oxbow::ublk {
namespace {

constexpr std::uint32_t k_page = 4096;
constexpr std::uint8_t k_sector_shift = 9;
constexpr std::uint8_t k_page_shift = 12;
// Of one discard, or zeros without data: what is done at once, and can be undone by nobody.
constexpr std::uint32_t k_most_range_sectors = (std::uint32_t{1} << 30U) / k_sector_bytes;

}  // namespace

std::uint32_t discard_granularity(const Device& device) {
  std::uint64_t largest = k_page;
  for (const TargetLine& line : device.target()->lines()) {
    if (!line.chain.empty()) largest = std::max(largest, line.chain.front().cluster_bytes);
  }
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(std::bit_ceil(largest), 1U << 30U));
}

Parameters parameters_for(std::uint64_t size_bytes, std::uint32_t granularity, bool read_only,
                          const DeviceInfo& info) noexcept {
  Parameters parameters{.kinds = k_basic,
                        .attributes = k_volatile_cache | k_fua,
                        .logical_block = k_sector_shift,
                        .physical_block = k_page_shift,
                        .best_block = k_page_shift,
                        .smallest_block = k_page_shift,
                        .most_sectors = info.most_bytes >> k_sector_shift,
                        .sectors = size_bytes >> k_sector_shift};
  if (read_only) {
    parameters.attributes |= k_read_only;
    return parameters;
  }
  parameters.kinds |= k_discard;
  parameters.discard_granularity = granularity;
  parameters.most_discard_sectors = k_most_range_sectors;
  parameters.most_zero_sectors = k_most_range_sectors;
  parameters.most_discard_ranges = 1;
  return parameters;
}

}  // namespace oxbow::ublk
