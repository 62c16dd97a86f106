// SPDX-License-Identifier: Apache-2.0
#include "sim/sector_pool.h"

#include <cstring>

namespace oxbow::sim {

SectorPool::SectorPool() {
  chunks_.push_back(std::make_unique<Chunk>());
  (*chunks_[0])[0].fill(std::byte{0});
}

ContentId SectorPool::add(SectorView bytes) {
  if (std::memcmp(bytes.data(), at(ContentId::zeros).data(), bytes.size()) == 0) return ContentId::zeros;
  if (size_ == chunks_.size() * k_chunk) chunks_.push_back(std::make_unique<Chunk>());
  std::memcpy((*chunks_[size_ / k_chunk])[size_ % k_chunk].data(), bytes.data(), bytes.size());
  return ContentId{static_cast<std::uint32_t>(size_++)};
}

}  // namespace oxbow::sim
