// SPDX-License-Identifier: Apache-2.0
#include "stores/packed/packed_index.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "formats/native/codec.h"
#include "stores/blocking.h"

namespace oxbow {
namespace {

using packed::Fault;

// A multiple of both kinds of records.
constexpr std::uint64_t k_piece_bytes = packed::k_frame_record_bytes << 15U;
static_assert(packed::k_frame_record_bytes == packed::k_run_record_bytes);

Error cannot_open(const Store& file, std::string why) {
  return {"cannot open packed layer", file.describe(), std::move(why)};
}

Error cannot_read(const char* what, const Store& file, IoStatus status) {
  return Error::from_errno(what, file.describe(), status.error_number());
}

// All bytes of [at, end) in pieces that are whole records.
template <typename Visit>
Result<void> read_pieces(Queue& queue, Store& file, std::uint64_t at, std::uint64_t end, Visit&& visit) {
  std::vector<std::byte> piece;
  while (at < end) {
    piece.resize(std::min(end - at, k_piece_bytes));
    const IoStatus read = read_blocking(queue, file, at, piece);
    if (!read.ok()) return std::unexpected(cannot_read("cannot read index", file, read));
    if (Fault fault = visit(std::span<const std::byte>(piece)))
      return std::unexpected(cannot_open(file, std::move(*fault)));
    at += piece.size();
  }
  return {};
}

template <typename Record>
Fault take_all(packed::Index& index, std::span<const std::byte> piece) {
  for (; !piece.empty(); piece = piece.subspan(sizeof(Record))) {
    Record record;
    std::memcpy(&record, piece.data(), sizeof(record));
    if (Fault fault = index.take(record)) return fault;
  }
  return std::nullopt;
}

Result<packed::Index> read_records(Queue& queue, Store& file, const packed::Header& header,
                                   const packed::Trailer& trailer) {
  const std::uint64_t frames = trailer.index_offset;
  const std::uint64_t runs = frames + (trailer.frame_count * packed::k_frame_record_bytes);
  const std::uint64_t end = runs + (trailer.run_count * packed::k_run_record_bytes);
  std::uint32_t crc = 0;
  auto read = read_pieces(queue, file, frames, end, [&](std::span<const std::byte> piece) -> Fault {
    crc = native::crc32c(piece, crc);
    return std::nullopt;
  });
  if (!read) return std::unexpected(read.error());
  if (crc != trailer.index_crc)
    return std::unexpected(cannot_open(file, "its index is damaged: its checksum is wrong"));
  packed::Index index(header, trailer);
  read = read_pieces(queue, file, frames, runs, [&](std::span<const std::byte> piece) {
    return take_all<packed::FrameRecord>(index, piece);
  });
  if (!read) return std::unexpected(read.error());
  read = read_pieces(queue, file, runs, end, [&](std::span<const std::byte> piece) {
    return take_all<packed::RunRecord>(index, piece);
  });
  if (!read) return std::unexpected(read.error());
  if (Fault fault = index.complete()) return std::unexpected(cannot_open(file, std::move(*fault)));
  return index;
}

}  // namespace

Result<bool> has_packed_magic(Queue& queue, Store& file) {
  std::array<char, packed::k_magic.size()> magic{};
  if (file.size() < sizeof(magic)) return false;
  const IoStatus read = read_struct(queue, file, 0, magic);
  if (!read.ok()) return std::unexpected(cannot_read("cannot read file", file, read));
  return magic == packed::k_magic;
}

Result<packed::Header> read_packed_header(Queue& queue, Store& file) {
  if (file.size() < packed::k_header_bytes + packed::k_trailer_bytes) {
    return std::unexpected(
        cannot_open(file, fmt::format("it is too short to be a packed layer ({} bytes)", file.size())));
  }
  packed::Header header;
  const IoStatus read = read_struct(queue, file, 0, header);
  if (!read.ok()) return std::unexpected(cannot_read("cannot read header", file, read));
  if (Fault fault = packed::check(header)) return std::unexpected(cannot_open(file, std::move(*fault)));
  return header;
}

Result<packed::Index> read_packed_index(Queue& queue, Store& file) {
  const auto header = read_packed_header(queue, file);
  if (!header) return std::unexpected(header.error());
  packed::Trailer trailer;
  const IoStatus read = read_struct(queue, file, file.size() - packed::k_trailer_bytes, trailer);
  if (!read.ok()) return std::unexpected(cannot_read("cannot read trailer", file, read));
  if (Fault fault = packed::check(trailer, *header, file.size()))
    return std::unexpected(cannot_open(file, std::move(*fault)));
  try {
    return read_records(queue, file, *header, trailer);
  } catch (const std::bad_alloc&) {
    return std::unexpected(Error::from_errno("cannot open packed layer", file.describe(), ENOMEM));
  }
}

}  // namespace oxbow
