// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "device/device.h"
#include "os/buffer_pool.h"
#include "os/queue.h"

namespace oxbow::nbd {

// The payload of a write that is too large to wait for, while it is being received: in chunks of at most 256
// KiB, each straight into the device's memory where the device offers that, else into a buffer for a device
// write of its own.
//
// Into the device's memory go whole sectors only (512 bytes, counted from the device's start; at the ends of
// the write what it covers of them): the odd last part waits in a bounce until the rest is there. So a client
// that vanishes at any byte leaves each sector old or new.
// Thread safety: belongs to the connection's thread.
class Payload {
 public:
  static constexpr std::uint64_t k_chunk_bytes = 256U << 10;

  // A chunk that is all here. `data` is invalid when the bytes are in the device's memory already.
  struct Chunk {
    Range range;
    Buffer data;
  };

  Payload(Device& device, Queue& queue) noexcept : device_(device), queue_(queue) {}

  // Begins to receive for `range`, which lies within the device, which is writable.
  void begin(Range range, Durability durability) noexcept;
  [[nodiscard]] bool active() const noexcept { return !left_.empty() || !chunk_.empty(); }
  [[nodiscard]] Durability durability() const noexcept { return durability_; }
  // Bytes that are still to come.
  [[nodiscard]] std::uint64_t missing() const noexcept { return left_.length + chunk_.length - got_; }

  // Where the next bytes belong, when `available` of them are there (0: not known). More than one sector only
  // if they are there, or if the place is not the device's memory. Empty when memory is short; not called
  // when nothing is missing.
  [[nodiscard]] std::span<std::byte> destination(std::size_t available) noexcept;
  // `count` bytes were put into the last destination(). Returns the chunk that they completed, if any.
  [[nodiscard]] std::optional<Chunk> put(std::size_t count) noexcept;
  // The rest will not be stored; sectors that are in the device's memory stay.
  void abandon() noexcept;

 private:
  void begin_chunk() noexcept;
  [[nodiscard]] std::size_t until_sector_end() const noexcept;
  [[nodiscard]] std::optional<Chunk> finish_chunk() noexcept;

  Device& device_;
  Queue& queue_;
  Durability durability_ = Durability::with_flush;
  Range left_;           // after the chunk
  Range chunk_;          // being received; empty between chunks
  std::size_t got_ = 0;  // bytes of the chunk that are here, those in the bounce included
  DirectWrite direct_;   // the device's memory, for the chunk; empty when there is a buffer
  Buffer buffer_;
  std::array<std::byte, k_sector_bytes> bounce_;
  std::size_t bounced_ = 0;  // bytes in the bounce
  bool to_bounce_ = false;   // where destination() pointed to
};

}  // namespace oxbow::nbd
