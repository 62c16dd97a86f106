// SPDX-License-Identifier: Apache-2.0
#include "os/frame_pool.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <utility>

namespace oxbow {

// Stands in front of each piece of memory: whose it is while in use, the next free one while not.
struct alignas(16) FramePool::Block {
  FramePool* pool;
  std::uint32_t size_class;
  Block* next;
};

FramePool::~FramePool() {
  for (Block* block : free_) {
    while (block != nullptr) std::free(std::exchange(block, block->next));
  }
}

void* FramePool::allocate(std::size_t bytes) noexcept {
  const auto rounded = std::bit_ceil(std::max<std::size_t>(bytes, std::size_t{1} << k_smallest_shift));
  const auto size_class = static_cast<std::size_t>(std::countr_zero(rounded)) - k_smallest_shift;
  if (size_class < k_classes && free_[size_class] != nullptr) {
    Block* block = free_[size_class];
    free_[size_class] = block->next;
    return block + 1;
  }
  auto* block = static_cast<Block*>(std::malloc(sizeof(Block) + rounded));
  if (block == nullptr) return nullptr;
  block->pool = this;
  block->size_class = static_cast<std::uint32_t>(size_class);
  return block + 1;
}

void FramePool::release(void* memory) noexcept {
  if (memory == nullptr) return;
  Block* block = static_cast<Block*>(memory) - 1;
  if (block->size_class >= k_classes) {
    std::free(block);
    return;
  }
  block->next = block->pool->free_[block->size_class];
  block->pool->free_[block->size_class] = block;
}

}  // namespace oxbow
