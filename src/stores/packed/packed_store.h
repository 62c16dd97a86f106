// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "formats/packed/codec.h"
#include "formats/packed/frame.h"
#include "os/task.h"
#include "oxbow/error.h"
#include "stores/packed/frame_cache.h"
#include "stores/store.h"

namespace oxbow {

inline constexpr std::uint64_t k_packed_cache_bytes = 64 << 20;

// The data clusters of a packed layer, one after the other in the order of the device: byte 0 is the first byte of the
// first cluster of data. Read-only: all that changes anything answers EROFS.
//
// A read decompresses the frames it touches, on the thread that asks, and keeps them in a cache; each is checked before
// a byte of it is given out, and one that is damaged answers EIO every time. With no_wait only what is cached is
// answered. Thread safety: as Store.
class PackedStore final : public Store {
 public:
  // The packed layer in `file`. Reads and checks all but the frames. Blocking.
  [[nodiscard]] static Result<std::shared_ptr<PackedStore>> open(
      Queue& queue, std::shared_ptr<Store> file, std::uint64_t cache_bytes = k_packed_cache_bytes);

  Progress read(Io& io, std::uint64_t at, std::span<std::byte> out, ReadMode mode) noexcept override;
  Progress write(Io& io, std::uint64_t at, WriteMode mode) noexcept override;
  Progress zero(Io& io, Range range, ZeroMode mode) noexcept override;
  Progress discard(Io& io, Range range) noexcept override;
  Progress sync(Io& /*io*/) noexcept override { return Progress::done(); }
  Progress allocate(Io& io, Range range) noexcept override;
  Progress grow(Io& io, std::uint64_t size) noexcept override;
  std::uint64_t extents(Range range, Extents& out) noexcept override;
  std::span<const std::byte> view(Range /*range*/) noexcept override { return {}; }
  std::span<std::byte> memory(Range /*range*/) noexcept override { return {}; }
  void prefetch(Range range) noexcept override;
  [[nodiscard]] std::uint64_t size() const noexcept override { return index_.data_bytes(); }
  [[nodiscard]] bool writable() const noexcept override { return false; }
  [[nodiscard]] std::string describe() const override { return file_->describe(); }
  // Of the packed file.
  [[nodiscard]] StoreFacts facts() const override { return file_->facts(); }

  [[nodiscard]] const packed::Index& index() const noexcept { return index_; }
  // The first damage that a read met, as a sentence that names frame and file; empty while there was none.
  [[nodiscard]] std::string damage() const;
  [[nodiscard]] std::uint64_t cached_bytes() const noexcept { return cache_.bytes(); }

 private:
  PackedStore(std::shared_ptr<Store> file, packed::Index index, std::uint64_t cache_bytes)
      : file_(std::move(file)), index_(std::move(index)), cache_(cache_bytes) {}

  // Copies from the cache what is there of [at, …), up to the first frame that isn't. Returns the bytes.
  [[nodiscard]] std::size_t read_cached(std::uint64_t at, std::span<std::byte> out) noexcept;
  [[nodiscard]] Task read_frames(Queue& queue, std::uint64_t at, std::span<std::byte> out);
  // The frame's clusters from its bytes, into the cache too. Null and an errno value when that doesn't work.
  [[nodiscard]] FrameCache::Content decode(std::uint64_t frame, std::span<const std::byte> stored,
                                           int& error) noexcept;
  [[nodiscard]] std::unique_ptr<packed::Decompressor> take_decompressor();
  void give_back(std::unique_ptr<packed::Decompressor> decompressor) noexcept;
  void note_damage(std::uint64_t frame, const char* why) noexcept;

  const std::shared_ptr<Store> file_;
  const packed::Index index_;
  FrameCache cache_;
  std::mutex idle_mutex_;
  std::vector<std::unique_ptr<packed::Decompressor>> idle_;  // guarded by idle_mutex_
  mutable std::mutex damage_mutex_;
  std::string damage_;  // guarded by damage_mutex_
};

}  // namespace oxbow
