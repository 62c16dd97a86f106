// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "oxbow/range.h"

namespace oxbow::sim {

using SectorBytes = std::array<std::byte, k_sector_bytes>;
using SectorView = std::span<const std::byte, k_sector_bytes>;

// Names for the contents of a sector: written once, never changed, forgotten all together.
enum class ContentId : std::uint32_t { zeros = 0 };

// Keeps the contents of sectors. Disks that were copied from each other share one pool, so a copy copies
// names only. Contents of zeros are always ContentId::zeros. Thread safety: none.
class SectorPool {
 public:
  SectorPool();
  SectorPool(const SectorPool&) = delete;
  SectorPool& operator=(const SectorPool&) = delete;
  SectorPool(SectorPool&&) = delete;
  SectorPool& operator=(SectorPool&&) = delete;
  ~SectorPool() = default;

  [[nodiscard]] ContentId add(SectorView bytes);
  // Valid until clear().
  [[nodiscard]] const SectorBytes& at(ContentId id) const noexcept {
    const auto index = static_cast<std::size_t>(id);
    return (*chunks_[index / k_chunk])[index % k_chunk];
  }
  // Forgets everything but the zeros, and keeps the memory for what comes next.
  void clear() noexcept { size_ = 1; }

 private:
  static constexpr std::size_t k_chunk = 512;
  using Chunk = std::array<SectorBytes, k_chunk>;
  std::vector<std::unique_ptr<Chunk>> chunks_;
  std::size_t size_ = 1;
};

}  // namespace oxbow::sim
