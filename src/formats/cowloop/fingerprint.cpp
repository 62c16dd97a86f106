// SPDX-License-Identifier: Apache-2.0
#include "formats/cowloop/fingerprint.h"

namespace oxbow::cowloop {

void Fingerprint::add(std::span<const std::byte> block) noexcept {
  if (done()) return;
  std::uint8_t sum = 0;
  for (const std::byte byte : block)
    sum = static_cast<std::uint8_t>(sum + std::to_integer<std::uint8_t>(byte));
  if (sum == 0) return;
  value_ |= std::uint32_t{sum} << (8 * sums_);
  ++sums_;
}

}  // namespace oxbow::cowloop
