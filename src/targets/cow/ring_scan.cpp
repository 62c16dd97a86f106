// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/ring_scan.h"

#include <algorithm>
#include <vector>

#include "formats/native/codec.h"
#include "stores/blocking.h"
#include "stores/data_pieces.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_align = native::k_ring_align_bytes;

// In whole blocks; relative to the ring's start.
std::uint64_t end_of_data(Store& layer, const native::Superblock& superblock) noexcept {
  DataPieces pieces(layer, {superblock.ring_offset, superblock.ring_length});
  std::uint64_t end = 0;
  for (Range piece = pieces.next(); !piece.empty(); piece = pieces.next())
    end = piece.end() - superblock.ring_offset;
  return std::min((end + k_align - 1) / k_align * k_align, superblock.ring_length);
}

// Reads records one at a time. Thread safety: none.
class RingReader {
 public:
  RingReader(Queue& queue, Store& layer, const native::Superblock& superblock)
      : queue_(queue), layer_(layer), superblock_(superblock), end_(end_of_data(layer, superblock)) {}

  // The record at `position`, valid until the next call; empty when there is no sound one.
  [[nodiscard]] Result<std::span<const std::byte>> at(std::uint64_t position) {
    if (position + k_align > end_) return std::span<const std::byte>{};
    if (auto read = fetch(position, 0, k_align); !read) return std::unexpected(read.error());
    const std::uint64_t length =
        native::ring_record_bytes(native::ring_head(bytes_), superblock_.ring_length - position);
    if (length == 0) return std::span<const std::byte>{};
    if (auto read = fetch(position, k_align, length); !read) return std::unexpected(read.error());
    const auto record = std::span<const std::byte>(bytes_).first(length);
    return native::valid_ring_record(record, superblock_) ? record : std::span<const std::byte>{};
  }

  // Where the last of its data ends, relative to the ring's start.
  [[nodiscard]] std::uint64_t end() const noexcept { return end_; }

 private:
  // Bytes [from, to) of what lies at `position`.
  [[nodiscard]] Result<void> fetch(std::uint64_t position, std::uint64_t from, std::uint64_t to) {
    if (bytes_.size() < to) bytes_.resize(to);
    const auto into = std::span(bytes_).subspan(from, to - from);
    const IoStatus read = read_blocking(queue_, layer_, superblock_.ring_offset + position + from, into);
    if (read.ok()) return {};
    return std::unexpected(
        Error::from_errno("cannot read commit ring", layer_.describe(), read.error_number()));
  }

  Queue& queue_;
  Store& layer_;
  const native::Superblock& superblock_;
  std::uint64_t end_;
  std::vector<std::byte> bytes_;
};

}  // namespace

std::uint64_t ring_bytes_written(Store& layer, const native::Superblock& superblock) noexcept {
  Extents extents;
  const Range ring{superblock.ring_offset, superblock.ring_length};
  (void)layer.extents(ring, extents);
  return extents[0].kind == Kind::data ? extents[0].length / k_align * k_align : 0;
}

Result<RingScan> scan_ring(Queue& queue, Store& layer, const native::Superblock& superblock,
                           const VisitRecord& visit) {
  RingReader reader(queue, layer, superblock);
  RingScan scan;
  std::uint64_t epoch = 0;
  for (;;) {
    auto record = reader.at(scan.end);
    if (!record) return std::unexpected(record.error());
    if (record->empty()) break;
    const native::RingRecord head = native::ring_head(*record);
    const bool follows =
        head.epoch >= epoch && (scan.records == 0 || head.sequence == scan.last_sequence + 1);
    if (!follows) break;
    if (auto visited = visit(scan.end, *record); !visited) return std::unexpected(visited.error());
    epoch = head.epoch;
    scan.last_sequence = head.sequence;
    scan.records += 1;
    scan.end += record->size();
  }
  return scan;
}

Result<void> visit_later_records(Queue& queue, Store& layer, const native::Superblock& superblock,
                                 const RingScan& scan, const VisitRecord& visit) {
  RingReader reader(queue, layer, superblock);
  for (std::uint64_t at = scan.end + k_align; at < reader.end();) {
    auto record = reader.at(at);
    if (!record) return std::unexpected(record.error());
    if (record->empty()) {
      at += k_align;
      continue;
    }
    if (native::ring_head(*record).sequence > scan.last_sequence) {
      if (auto visited = visit(at, *record); !visited) return visited;
    }
    at += record->size();
  }
  return {};
}

}  // namespace oxbow
