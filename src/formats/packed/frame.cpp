// SPDX-License-Identifier: Apache-2.0
#include "formats/packed/frame.h"

#include <zstd.h>

#include <cstring>
#include <new>

#include "formats/native/codec.h"

namespace oxbow::packed {

void Compressor::Free::operator()(ZSTD_CCtx* context) const noexcept { ZSTD_freeCCtx(context); }
void Decompressor::Free::operator()(ZSTD_DCtx* context) const noexcept { ZSTD_freeDCtx(context); }

Compressor::Compressor(int level) {
  if (level == 0) return;
  context_.reset(ZSTD_createCCtx());
  if (context_ == nullptr) throw std::bad_alloc();
  if (ZSTD_isError(ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, level)) != 0)
    throw std::bad_alloc();
}
Compressor::~Compressor() = default;
Compressor::Compressor(Compressor&&) noexcept = default;

FrameRecord Compressor::encode(std::span<const std::byte> content, std::vector<std::byte>& stored) {
  FrameRecord record{};
  record.content_crc = native::crc32c(content);
  if (context_ != nullptr) {
    stored.resize(ZSTD_compressBound(content.size()));
    const std::size_t length =
        ZSTD_compress2(context_.get(), stored.data(), stored.size(), content.data(), content.size());
    if (ZSTD_isError(length) != 0) throw std::bad_alloc();  // there is no other reason for it to fail
    // A frame that saves less than one part in 32 isn't worth the time it takes to read it.
    if (length <= content.size() - (content.size() / 32)) {
      stored.resize(length);
      record.encoding = Encoding::zstd;
    }
  }
  if (record.encoding == Encoding::raw) stored.assign(content.begin(), content.end());
  record.length = static_cast<std::uint32_t>(stored.size());
  record.stored_crc = native::crc32c(stored);
  return record;
}

Decompressor::Decompressor() : context_(ZSTD_createDCtx()) {
  if (context_ == nullptr) throw std::bad_alloc();
}
Decompressor::~Decompressor() = default;
Decompressor::Decompressor(Decompressor&&) noexcept = default;

const char* Decompressor::decode(const FrameRecord& record, std::span<const std::byte> stored,
                                 std::span<std::byte> content) noexcept {
  if (stored.size() != record.length) return "it has another length than its record says";
  if (native::crc32c(stored) != record.stored_crc) return "its checksum is wrong";
  if (record.encoding == Encoding::raw) {
    if (stored.size() != content.size()) return "it has another length than its clusters";
    std::memcpy(content.data(), stored.data(), content.size());
  } else {
    // Exactly one frame, which says itself how much it holds: nothing is skipped, nothing follows.
    if (ZSTD_getFrameContentSize(stored.data(), stored.size()) != content.size())
      return "it doesn't hold as many bytes as its clusters have";
    if (ZSTD_findFrameCompressedSize(stored.data(), stored.size()) != stored.size())
      return "it is not one whole frame of zstd";
    const std::size_t length =
        ZSTD_decompressDCtx(context_.get(), content.data(), content.size(), stored.data(), stored.size());
    if (ZSTD_isError(length) != 0) return "it cannot be decompressed";
    if (length != content.size()) return "it doesn't hold as many bytes as its clusters have";
  }
  if (native::crc32c(content) != record.content_crc) return "the checksum of what it holds is wrong";
  return nullptr;
}

}  // namespace oxbow::packed
