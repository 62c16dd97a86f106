// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "os/buffer_pool.h"

namespace oxbow::nbd {

// Memory that was received into and that writes in flight may still be reading from.
// Thread safety: belongs to the connection's thread.
struct Slab {
  Buffer memory;
  unsigned pins = 0;  // writes in flight out of it
};

// What was received and is not consumed yet, in one piece. Consumed bytes stay where they are as long as
// their slab is pinned: the buffer then goes on in another slab.
// Thread safety: belongs to the connection's thread.
class ReceiveBuffer {
 public:
  static constexpr std::size_t k_slab_bytes = 256U << 10;
  // Whoever waits for a message to become complete may wait for this many bytes.
  static constexpr std::size_t k_max_message_bytes = 68U << 10;

  // `max_pins`: how many pins there are at most, so that room for what is pinned is there from the beginning.
  ReceiveBuffer(BufferPool& pool, std::size_t max_pins) : pool_(pool) { left_.reserve(max_pins + 1); }

  // Room to receive into, at least what is missing to k_max_message_bytes; empty when memory is short.
  [[nodiscard]] std::span<std::byte> room() noexcept;
  // `count` bytes were put into room().
  void received(std::size_t count) noexcept { end_ += count; }

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept;
  void consume(std::size_t count) noexcept { begin_ += count; }

  // Gives the memory back when nothing is in it, so that a client who sends nothing costs none.
  void release() noexcept {
    if (slab_ != nullptr && slab_->pins == 0 && begin_ == end_) slab_.reset();
    if (slab_ == nullptr) begin_ = end_ = 0;
    std::erase_if(left_, [](const auto& slab) { return slab->pins == 0; });
  }

  // Keeps the memory of what bytes() shows until unpin().
  [[nodiscard]] Slab* pin() noexcept;
  static void unpin(Slab* slab) noexcept { --slab->pins; }

 private:
  [[nodiscard]] std::unique_ptr<Slab> unpinned_slab() noexcept;

  BufferPool& pool_;
  std::unique_ptr<Slab> slab_;
  std::size_t begin_ = 0;  // of what is not consumed, in slab_
  std::size_t end_ = 0;
  std::vector<std::unique_ptr<Slab>> left_;  // slabs that were pinned when they were left
};

}  // namespace oxbow::nbd
