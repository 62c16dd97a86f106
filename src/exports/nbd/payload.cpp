// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/payload.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace oxbow::nbd {

void Payload::begin(Range range, Durability durability) noexcept {
  left_ = range;
  durability_ = durability;
}

void Payload::begin_chunk() noexcept {
  // Chunks end at multiples of their size, so that the clusters of a layer are not cut.
  const Range chunk = left_.prefix(k_chunk_bytes - left_.offset % k_chunk_bytes);
  if (durability_ == Durability::with_flush) direct_ = device_.direct(queue_, chunk);
  if (direct_.memory.empty()) {
    buffer_ = queue_.buffers().take(chunk.length);
    if (!buffer_.valid()) return;
  }
  chunk_ = chunk;
  left_ = left_.without_prefix(chunk.length);
  got_ = 0;
  bounced_ = 0;
}

// From the next byte to the end of its sector or of the chunk.
std::size_t Payload::until_sector_end() const noexcept {
  const std::uint64_t in_sector = (chunk_.offset + got_) % k_sector_bytes;
  return std::min<std::uint64_t>(k_sector_bytes - in_sector, chunk_.length - got_);
}

std::span<std::byte> Payload::destination(std::size_t available) noexcept {
  if (chunk_.empty()) begin_chunk();
  if (chunk_.empty()) return {};
  if (direct_.memory.empty()) return buffer_.bytes().subspan(got_);

  const std::size_t sector = until_sector_end();
  to_bounce_ = bounced_ > 0 || available < sector;
  if (to_bounce_) return std::span(bounce_).subspan(bounced_, sector);
  std::size_t whole = std::min<std::size_t>(available, chunk_.length - got_);
  if (got_ + whole < chunk_.length) whole -= (chunk_.offset + got_ + whole) % k_sector_bytes;
  return direct_.memory.subspan(got_, whole);
}

std::optional<Payload::Chunk> Payload::put(std::size_t count) noexcept {
  if (direct_.memory.empty()) {
    got_ += count;
  } else if (to_bounce_) {
    const bool complete = count == until_sector_end();
    got_ += count;
    bounced_ += count;
    if (complete) {
      std::memcpy(direct_.memory.subspan(got_ - bounced_).data(), bounce_.data(), bounced_);
      bounced_ = 0;
    }
  } else {
    got_ += count;
    // The kernel gave less than it said was there: what is in the memory of the last sector has to be
    // completed.
    if (got_ < chunk_.length)
      bounced_ = std::min<std::size_t>((chunk_.offset + got_) % k_sector_bytes, count);
    std::memcpy(bounce_.data(), direct_.memory.subspan(got_ - bounced_).data(), bounced_);
  }
  if (got_ < chunk_.length) return std::nullopt;
  return finish_chunk();
}

std::optional<Payload::Chunk> Payload::finish_chunk() noexcept {
  if (!direct_.memory.empty()) device_.received(queue_, chunk_);
  direct_ = {};
  got_ = 0;
  return Chunk{std::exchange(chunk_, {}), std::exchange(buffer_, {})};
}

void Payload::abandon() noexcept {
  if (!direct_.memory.empty() && got_ > bounced_) device_.received(queue_, chunk_.prefix(got_ - bounced_));
  direct_ = {};
  buffer_ = {};
  chunk_ = {};
  left_ = {};
  got_ = 0;
}

}  // namespace oxbow::nbd
