// SPDX-License-Identifier: Apache-2.0
#include "os/buffer_pool.h"

#include <algorithm>
#include <bit>
#include <cstdlib>

namespace oxbow {
namespace {
constexpr std::size_t k_alignment_bytes = 4096;
constexpr int k_smallest_shift = 12;
}  // namespace

Buffer::~Buffer() {
  if (pool_ != nullptr) pool_->give_back(bytes_.data(), class_);
}

BufferPool::~BufferPool() {
  for (Class& each : classes_) {
    std::for_each_n(each.kept.begin(), each.count, [](std::byte* memory) { std::free(memory); });
  }
}

Buffer BufferPool::take(std::size_t bytes) noexcept {
  const std::size_t rounded = std::bit_ceil(std::max(bytes, k_alignment_bytes));
  Buffer buffer;
  buffer.class_ = static_cast<std::size_t>(std::countr_zero(rounded) - k_smallest_shift);
  std::byte* memory = nullptr;
  if (buffer.class_ < k_classes && classes_[buffer.class_].count > 0) {
    Class& from = classes_[buffer.class_];
    memory = from.kept[--from.count];
  } else {
    memory = static_cast<std::byte*>(std::aligned_alloc(k_alignment_bytes, rounded));
  }
  if (memory == nullptr) return {};
  lent_bytes_ += rounded;
  buffer.pool_ = this;
  buffer.bytes_ = {memory, bytes};
  return buffer;
}

void BufferPool::give_back(std::byte* memory, std::size_t size_class) noexcept {
  const std::size_t size = k_alignment_bytes << size_class;
  lent_bytes_ -= size;
  if (size_class < k_classes) {
    Class& to = classes_[size_class];
    if (to.count < to.kept.size() && (to.count == 0 || (to.count + 1) * size <= k_kept_bytes)) {
      to.kept[to.count++] = memory;
      return;
    }
  }
  std::free(memory);
}

}  // namespace oxbow
