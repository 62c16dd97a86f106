// SPDX-License-Identifier: Apache-2.0
#pragma once

// Frames: clusters, compressed or as they are.

#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "formats/packed/layout.h"

struct ZSTD_CCtx_s;
struct ZSTD_DCtx_s;

namespace oxbow::packed {

inline constexpr int k_default_level = 3;
inline constexpr int k_lowest_level = 1;
inline constexpr int k_highest_level = 19;

// Makes frames. Thread safety: one thread at a time.
class Compressor {
 public:
  // With `level` 0 nothing is compressed.
  explicit Compressor(int level);
  ~Compressor();
  Compressor(Compressor&&) noexcept;
  Compressor& operator=(Compressor&&) = delete;
  Compressor(const Compressor&) = delete;
  Compressor& operator=(const Compressor&) = delete;

  // The frame of `content` into `stored`, which is made as long as it is. Everything of the answer is set but
  // `offset`. Throws std::bad_alloc.
  [[nodiscard]] FrameRecord encode(std::span<const std::byte> content, std::vector<std::byte>& stored);

 private:
  struct Free {
    void operator()(ZSTD_CCtx_s* context) const noexcept;
  };
  std::unique_ptr<ZSTD_CCtx_s, Free> context_;
};

// Reads frames. Thread safety: one thread at a time.
class Decompressor {
 public:
  // Throws std::bad_alloc.
  Decompressor();
  ~Decompressor();
  Decompressor(Decompressor&&) noexcept;
  Decompressor& operator=(Decompressor&&) = delete;
  Decompressor(const Decompressor&) = delete;
  Decompressor& operator=(const Decompressor&) = delete;

  // The clusters of the frame `stored`, which `record` describes, into `content`, which is as long as they have to be:
  // not a byte is written beyond it, whatever the frame says. What was wrong, or null.
  [[nodiscard]] const char* decode(const FrameRecord& record, std::span<const std::byte> stored,
                                   std::span<std::byte> content) noexcept;

 private:
  struct Free {
    void operator()(ZSTD_DCtx_s* context) const noexcept;
  };
  std::unique_ptr<ZSTD_DCtx_s, Free> context_;
};

}  // namespace oxbow::packed
