// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/receive_buffer.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

namespace oxbow::nbd {

std::span<const std::byte> ReceiveBuffer::bytes() const noexcept {
  if (slab_ == nullptr) return {};
  return slab_->memory.bytes().subspan(begin_, end_ - begin_);
}

Slab* ReceiveBuffer::pin() noexcept {
  ++slab_->pins;
  return slab_.get();
}

// One that was left and is free again, or a new one; null when memory is short.
std::unique_ptr<Slab> ReceiveBuffer::unpinned_slab() noexcept {
  const auto free = std::ranges::find(left_, 0U, [](const auto& slab) { return slab->pins; });
  if (free != left_.end()) {
    std::swap(*free, left_.back());
    std::unique_ptr<Slab> slab = std::move(left_.back());
    left_.pop_back();
    return slab;
  }
  std::unique_ptr<Slab> slab(new (std::nothrow) Slab);
  if (slab == nullptr) return nullptr;
  slab->memory = pool_.take(k_slab_bytes);
  if (!slab->memory.valid()) return nullptr;
  return slab;
}

std::span<std::byte> ReceiveBuffer::room() noexcept {
  if (slab_ == nullptr) slab_ = unpinned_slab();
  if (slab_ == nullptr) return {};
  const auto here = bytes();
  if (slab_->pins == 0 && (here.empty() || begin_ + k_max_message_bytes > k_slab_bytes)) {
    std::memmove(slab_->memory.bytes().data(), here.data(), here.size());
    begin_ = 0;
    end_ = here.size();
  } else if (slab_->pins != 0 && begin_ + k_max_message_bytes > k_slab_bytes) {
    std::unique_ptr<Slab> next = unpinned_slab();
    if (next == nullptr) return {};
    std::memcpy(next->memory.bytes().data(), here.data(), here.size());
    left_.push_back(std::exchange(slab_, std::move(next)));
    begin_ = 0;
    end_ = here.size();
  }
  return slab_->memory.bytes().subspan(end_);
}

}  // namespace oxbow::nbd
