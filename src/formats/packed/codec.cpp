// SPDX-License-Identifier: Apache-2.0
#include "formats/packed/codec.h"

#include <fmt/format.h>

#include <algorithm>
#include <span>

#include "formats/native/codec.h"

namespace oxbow::packed {
namespace {

constexpr std::size_t k_crc_offset = 8;  // of header and trailer

template <typename T>
std::uint32_t crc_of(const T& object) noexcept {
  static_assert(offsetof(T, crc) == k_crc_offset);
  return native::crc32c(std::as_bytes(std::span(&object, 1)).subspan(k_crc_offset + sizeof(std::uint32_t)));
}

bool all_zero(std::span<const std::uint8_t> bytes) noexcept {
  return std::ranges::all_of(bytes, [](std::uint8_t byte) { return byte == 0; });
}

std::uint64_t clusters_of(const Header& header) noexcept {
  return native::cluster_count(header.size, header.cluster_shift);
}

Fault check_sizes(const Header& h) {
  if (h.cluster_shift < native::k_smallest_cluster_shift || h.cluster_shift > native::k_largest_cluster_shift)
    return fmt::format("its header's cluster_shift is {}, not 12 to 20", h.cluster_shift);
  if (h.frame_shift < k_smallest_frame_shift || h.frame_shift > k_largest_frame_shift ||
      h.frame_shift < h.cluster_shift) {
    return fmt::format("its header's frame_shift is {}, not {} to 20", h.frame_shift,
                       std::max(k_smallest_frame_shift, h.cluster_shift));
  }
  if (h.size == 0 || h.max_size > native::k_largest_size_bytes || h.size > h.max_size)
    return fmt::format("its header's size {} and max_size {} don't fit each other", h.size, h.max_size);
  if (h.base_visible > h.size || h.base_visible > h.base.size) {
    return fmt::format("its header's base_visible {} is above size {} or the base's size {}", h.base_visible,
                       h.size, h.base.size);
  }
  return std::nullopt;
}

}  // namespace

void seal(Header& header) noexcept { header.crc = crc_of(header); }
void seal(Trailer& trailer) noexcept { trailer.crc = crc_of(trailer); }

Fault check(const Header& h) {
  if (h.magic != k_magic) return "it has no magic of a packed layer";
  if (h.crc != crc_of(h)) return "its header is damaged: its checksum is wrong";
  if (h.version > k_version) {
    return fmt::format("its format version is {}, this oxbow knows up to {}: use a newer oxbow", h.version,
                       k_version);
  }
  if (h.version == 0) return "its header's version is 0, not 1";
  if (h.incompatible != 0) {
    return fmt::format("it uses features that this oxbow doesn't know ({:#x}): use a newer oxbow",
                       h.incompatible);
  }
  if (auto fault = check_sizes(h)) return fault;
  if (h.epoch == 0) return "its header's epoch is 0";
  if (h.base.kind > native::BaseKind::layer) {
    return fmt::format("its header's base kind is {}, not 0 to 2", static_cast<std::uint32_t>(h.base.kind));
  }
  if (h.base_path_length > native::k_base_path_bytes ||
      (h.base.kind != native::BaseKind::none && h.base_path_length == 0)) {
    return fmt::format("its header's base_path_length is {}, not 1 to {}", h.base_path_length,
                       native::k_base_path_bytes);
  }
  if (base_path(h).find('\0') != std::string::npos) return "its header's base_path holds a zero byte";
  if (h.reserved0 != 0 || !all_zero(h.reserved1)) return "its header's reserved bytes are not zero";
  return std::nullopt;
}

Fault check(const Trailer& t, const Header& header, std::uint64_t file_bytes) {
  if (t.magic != k_trailer_magic) {
    return fmt::format("it has no trailer at its end: it was cut off, or something was appended ({} bytes)",
                       file_bytes);
  }
  if (t.crc != crc_of(t)) return "its trailer is damaged: its checksum is wrong";
  if (t.header_crc != header.crc) return "its trailer belongs to another header";
  if (t.file_bytes != file_bytes)
    return fmt::format("it is {} bytes long, its trailer's file_bytes is {}", file_bytes, t.file_bytes);
  const std::uint64_t room = file_bytes - k_header_bytes - k_trailer_bytes;
  const std::uint64_t clusters = clusters_of(header);
  if (t.frame_count > room / k_frame_record_bytes || t.frame_count > clusters) {
    return fmt::format("its trailer's frame_count is {}, more than {} bytes hold", t.frame_count, file_bytes);
  }
  if (t.run_count > room / k_run_record_bytes || t.run_count > clusters) {
    return fmt::format("its trailer's run_count is {}, more than {} bytes hold", t.run_count, file_bytes);
  }
  const std::uint64_t index = (t.frame_count * k_frame_record_bytes) + (t.run_count * k_run_record_bytes);
  if (index > room || t.index_offset != file_bytes - k_trailer_bytes - index) {
    return fmt::format(
        "its trailer's index_offset is {}, which doesn't fit {} frames and {} runs in {} bytes",
        t.index_offset, t.frame_count, t.run_count, file_bytes);
  }
  if (t.reserved0 != 0 || t.reserved1 != 0) return "its trailer's reserved bytes are not zero";
  return std::nullopt;
}

Fault Index::take(const FrameRecord& r) {
  const std::uint64_t number = frames_.size();
  const auto fault = [&](std::string_view field, std::uint64_t value, std::string_view why) {
    return fmt::format("frame record {}: {} is {}, {}", number, field, value, why);
  };
  if (number == trailer_.frame_count) return fault("number", number, "more than there are");
  if (r.offset != next_frame_at_)
    return fault("offset", r.offset, fmt::format("not {}, where the one before ends", next_frame_at_));
  if (r.encoding != Encoding::raw && r.encoding != Encoding::zstd)
    return fault("encoding", static_cast<std::uint32_t>(r.encoding), "not 0 or 1");
  // No frame is larger than its content: what doesn't shrink is stored as it is.
  if (r.length == 0 || r.length > frame_bytes())
    return fault("length", r.length, fmt::format("not 1 to {}", frame_bytes()));
  if (r.length > trailer_.index_offset - next_frame_at_)
    return fault("length", r.length, "which leads into the index");
  frames_.push_back(r);
  next_frame_at_ += r.length;
  return std::nullopt;
}

Fault Index::take(const RunRecord& r) {
  const std::uint64_t number = runs_.size();
  const auto fault = [&](std::string_view field, std::uint64_t value, std::string_view why) {
    return fmt::format("run record {}: {} is {}, {}", number, field, value, why);
  };
  const std::uint64_t clusters = clusters_of(header_);
  const std::uint64_t before = runs_.empty() ? 0 : runs_.back().end();
  if (number == trailer_.run_count) return fault("number", number, "more than there are");
  if (r.kind != RunKind::zero && r.kind != RunKind::data)
    return fault("kind", static_cast<std::uint32_t>(r.kind), "not 1 or 3");
  if (r.reserved != 0) return fault("reserved", r.reserved, "not 0");
  if (r.first < before)
    return fault("first", r.first, fmt::format("below {}, where the one before ends", before));
  if (r.first >= clusters)
    return fault("first", r.first, fmt::format("beyond the last of {} clusters", clusters));
  if (r.count == 0 || r.count > clusters - r.first)
    return fault("count", r.count, fmt::format("not 1 to {}", clusters - r.first));
  if (!runs_.empty() && r.first == before && r.kind == runs_.back().kind)
    return fault("first", r.first, "which only goes on with the one before");
  runs_.push_back({r.first, r.count, r.kind, data_clusters_});
  (r.kind == RunKind::data ? data_clusters_ : zero_clusters_) += r.count;
  return std::nullopt;
}

Fault Index::complete() const {
  if (next_frame_at_ != trailer_.index_offset) {
    return fmt::format("its frames end at byte {}, its index begins at {}", next_frame_at_,
                       trailer_.index_offset);
  }
  const std::uint64_t needed = frames_for(data_clusters_, header_);
  if (frames_.size() != needed || frames_.size() != trailer_.frame_count) {
    return fmt::format("its runs have {} clusters of data, which are {} frames, but it has {}",
                       data_clusters_, needed, frames_.size());
  }
  if (runs_.size() != trailer_.run_count)
    return fmt::format("it has {} runs, its trailer's run_count is {}", runs_.size(), trailer_.run_count);
  for (std::uint64_t frame = 0; frame < frames_.size(); ++frame) {
    const std::uint64_t content = content_bytes(frame);
    const bool raw = frames_[frame].encoding == Encoding::raw;
    if (raw ? frames_[frame].length != content : frames_[frame].length >= content) {
      return fmt::format("frame record {}: length is {}, which {} its {} bytes of clusters", frame,
                         frames_[frame].length, raw ? "is not" : "is not below", content);
    }
  }
  return std::nullopt;
}

std::uint64_t Index::content_bytes(std::uint64_t frame) const noexcept {
  return std::min(frame_bytes(), data_bytes() - (frame << header_.frame_shift));
}

std::size_t Index::find(std::uint64_t cluster) const noexcept {
  const auto found = std::ranges::upper_bound(runs_, cluster, {}, &Run::end);
  return static_cast<std::size_t>(found - runs_.begin());
}

std::uint64_t frames_for(std::uint64_t data_clusters, const Header& header) noexcept {
  const std::uint64_t per_frame = std::uint64_t{1} << (header.frame_shift - header.cluster_shift);
  return (data_clusters + per_frame - 1) / per_frame;
}

std::string base_path(const Header& header) {
  const auto length = std::min<std::size_t>(header.base_path_length, native::k_base_path_bytes);
  return {header.base_path.data(), length};
}

native::Superblock as_superblock(const Header& header) noexcept {
  native::Superblock s{};
  s.magic = native::k_magic;
  s.version = header.version;
  s.uuid = header.uuid;
  s.created_ns = header.created_ns;
  s.size = header.size;
  s.base_visible = header.base_visible;
  s.max_size = header.max_size;
  s.cluster_shift = header.cluster_shift;
  s.epoch = header.epoch;
  s.absent_before = header.epoch;
  s.state = native::LayerState::clean;
  s.base_path_length = header.base_path_length;
  s.base = header.base;
  s.base_path = header.base_path;
  return s;
}

}  // namespace oxbow::packed
