// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace oxbow {

// Keeps the memory of finished coroutine frames and I/O buffers for the next ones, in power-of-two size
// classes, so that the slow half of a request costs no malloc.
// Thread safety: none; a pool belongs to one queue's thread. Memory must come back on that thread.
class FramePool {
 public:
  FramePool() noexcept = default;
  ~FramePool();
  FramePool(const FramePool&) = delete;
  FramePool& operator=(const FramePool&) = delete;
  FramePool(FramePool&&) = delete;
  FramePool& operator=(FramePool&&) = delete;

  // `bytes` bytes aligned to 16, or null when memory is short.
  [[nodiscard]] void* allocate(std::size_t bytes) noexcept;
  // Gives back what allocate() of any pool returned; finds its pool by itself. Null is ignored.
  static void release(void* memory) noexcept;

 private:
  struct Block;
  static constexpr std::size_t k_classes = 8;  // 256 bytes … 32 KiB
  static constexpr std::size_t k_smallest_shift = 8;
  std::array<Block*, k_classes> free_{};
};

}  // namespace oxbow
