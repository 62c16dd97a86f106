// SPDX-License-Identifier: Apache-2.0
#include "formats/cowloop/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <new>

namespace oxbow::cowloop {
namespace {

constexpr int k_gzip_window_bits = 15 + 16;  // the largest window, and a gzip header and trailer
constexpr int k_usual_memory_level = 8;
constexpr std::size_t k_buffer_bytes = 256 << 10;
// What zlib counts bytes with has 32 bits.
constexpr std::size_t k_most_bytes_per_call = std::size_t{1} << 30;

Bytef* bytes_of(std::span<const std::byte> bytes) noexcept {
  // zlib only reads from what it is given to read, and has no const for it in all of its versions.
  return reinterpret_cast<Bytef*>(const_cast<std::byte*>(bytes.data()));
}

}  // namespace

bool has_gzip_magic(std::span<const std::byte> start) noexcept {
  return start.size() >= 2 && start[0] == std::byte{0x1f} && start[1] == std::byte{0x8b};
}

Inflater::Inflater() : stream_(std::make_unique<z_stream>()) {
  if (::inflateInit2(stream_.get(), k_gzip_window_bits) != Z_OK) throw std::bad_alloc();
}

Inflater::~Inflater() { ::inflateEnd(stream_.get()); }

std::expected<Inflater::Step, std::string> Inflater::step(std::span<const std::byte> in,
                                                          std::span<std::byte> out) {
  in = in.first(std::min(in.size(), k_most_bytes_per_call));
  out = out.first(std::min(out.size(), k_most_bytes_per_call));
  stream_->next_in = bytes_of(in);
  stream_->avail_in = static_cast<uInt>(in.size());
  stream_->next_out = bytes_of(out);
  stream_->avail_out = static_cast<uInt>(out.size());
  const int done = ::inflate(stream_.get(), Z_NO_FLUSH);
  const Step step{.taken = in.size() - stream_->avail_in,
                  .given = out.size() - stream_->avail_out,
                  .ended = done == Z_STREAM_END};
  if (done == Z_OK || done == Z_STREAM_END || done == Z_BUF_ERROR) return step;
  if (done == Z_NEED_DICT)
    return std::unexpected("its gzip data wants a dictionary, which cowpack never uses");
  if (done == Z_MEM_ERROR) throw std::bad_alloc();
  return std::unexpected(std::string("its gzip data is damaged: ") +
                         (stream_->msg != nullptr ? stream_->msg : "it makes no sense"));
}

Deflater::Deflater(Append append)
    : append_(std::move(append)),
      stream_(std::make_unique<z_stream>()),
      buffer_(std::make_unique<std::byte[]>(k_buffer_bytes)) {
  const int done = ::deflateInit2(stream_.get(), Z_BEST_COMPRESSION, Z_DEFLATED, k_gzip_window_bits,
                                  k_usual_memory_level, Z_DEFAULT_STRATEGY);
  if (done != Z_OK) throw std::bad_alloc();
}

Deflater::~Deflater() { ::deflateEnd(stream_.get()); }

Result<void> Deflater::run(std::span<const std::byte> bytes, bool end) {
  bool more = true;
  while (more) {
    const auto piece = bytes.first(std::min(bytes.size(), k_most_bytes_per_call));
    stream_->next_in = bytes_of(piece);
    stream_->avail_in = static_cast<uInt>(piece.size());
    stream_->next_out = reinterpret_cast<Bytef*>(buffer_.get());
    stream_->avail_out = static_cast<uInt>(k_buffer_bytes);
    const int done = ::deflate(stream_.get(), end ? Z_FINISH : Z_NO_FLUSH);
    const std::size_t given = k_buffer_bytes - stream_->avail_out;
    bytes = bytes.subspan(piece.size() - stream_->avail_in);
    if (given > 0) {
      if (auto appended = append_({buffer_.get(), given}); !appended) return appended;
    }
    more = end ? done != Z_STREAM_END : !bytes.empty() || stream_->avail_out == 0;
  }
  return {};
}

}  // namespace oxbow::cowloop
