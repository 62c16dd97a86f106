// SPDX-License-Identifier: Apache-2.0
#include "formats/packed/writer.h"

#include <algorithm>

#include "formats/native/codec.h"
#include "formats/packed/codec.h"

namespace oxbow::packed {
namespace {

// The library's checksum takes lengths as int.
constexpr std::size_t k_piece_bytes = std::size_t{1} << 20;

}  // namespace

Writer::Writer(const Header& header, Append append) : header_(header), append_(std::move(append)) {
  header_.magic = k_magic;
  header_.version = k_version;
  seal(header_);
}

Result<void> Writer::append(std::span<const std::byte> bytes) {
  auto appended = append_(bytes);
  if (appended) file_bytes_ += bytes.size();
  return appended;
}

Result<void> Writer::begin() { return append(std::as_bytes(std::span(&header_, 1))); }

void Writer::add_run(std::uint64_t first, std::uint64_t count, RunKind kind) {
  if (!runs_.empty()) {
    RunRecord& last = runs_.back();
    if (last.kind == kind && last.first + last.count == first) {
      last.count += count;
      return;
    }
  }
  runs_.push_back({.first = first, .count = count, .kind = kind, .reserved = 0});
}

Result<void> Writer::add_frame(FrameRecord record, std::span<const std::byte> stored) {
  record.offset = file_bytes_;
  frames_.push_back(record);
  return append(stored);
}

Result<void> Writer::finish() {
  Trailer trailer{};
  trailer.magic = k_trailer_magic;
  trailer.header_crc = header_.crc;
  trailer.index_offset = file_bytes_;
  trailer.frame_count = frames_.size();
  trailer.run_count = runs_.size();
  for (std::span<const std::byte> rest :
       {std::as_bytes(std::span(frames_)), std::as_bytes(std::span(runs_))}) {
    while (!rest.empty()) {
      const auto piece = rest.first(std::min(rest.size(), k_piece_bytes));
      trailer.index_crc = native::crc32c(piece, trailer.index_crc);
      if (auto appended = append(piece); !appended) return appended;
      rest = rest.subspan(piece.size());
    }
  }
  trailer.file_bytes = file_bytes_ + sizeof(trailer);
  seal(trailer);
  return append(std::as_bytes(std::span(&trailer, 1)));
}

}  // namespace oxbow::packed
