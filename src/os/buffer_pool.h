// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <utility>

namespace oxbow {

class BufferPool;

// A 4096-byte-aligned buffer on loan from a pool (aligned for O_DIRECT); goes back when destroyed.
// Thread safety: like its pool.
class Buffer {
 public:
  Buffer() noexcept = default;
  Buffer(Buffer&& other) noexcept
      : pool_(std::exchange(other.pool_, nullptr)),
        bytes_(std::exchange(other.bytes_, {})),
        class_(other.class_) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(bytes_, other.bytes_);
    std::swap(class_, other.class_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();

  // Empty when memory was short.
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
  [[nodiscard]] bool valid() const noexcept { return bytes_.data() != nullptr; }

 private:
  friend class BufferPool;
  BufferPool* pool_ = nullptr;
  std::span<std::byte> bytes_;
  std::size_t class_ = 0;
};

// Lends aligned buffers of 4 KiB … 4 MiB and keeps a few of each size for reuse.
// Thread safety: none; a pool belongs to one queue's thread, and outlives its buffers.
class BufferPool {
 public:
  BufferPool() noexcept = default;
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;
  BufferPool(BufferPool&&) = delete;
  BufferPool& operator=(BufferPool&&) = delete;

  // A buffer of exactly `bytes` usable bytes (contents undefined); !valid() when memory is short.
  [[nodiscard]] Buffer take(std::size_t bytes) noexcept;
  // Memory of all buffers that are on loan.
  [[nodiscard]] std::size_t lent_bytes() const noexcept { return lent_bytes_; }

 private:
  friend class Buffer;
  void give_back(std::byte* memory, std::size_t size_class) noexcept;

  static constexpr std::size_t k_classes = 11;           // 4 KiB … 4 MiB
  static constexpr std::size_t k_kept_bytes = 1U << 20;  // per size class, at most (one buffer at least)
  struct Class {
    std::array<std::byte*, 16> kept{};
    std::size_t count = 0;
  };
  std::array<Class, k_classes> classes_{};
  std::size_t lent_bytes_ = 0;
};

}  // namespace oxbow
