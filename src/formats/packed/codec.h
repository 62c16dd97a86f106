// SPDX-License-Identifier: Apache-2.0
#pragma once

// Checks and seals for the structs of layout.h: bytes in, bytes out, no I/O.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "formats/packed/layout.h"

namespace oxbow::packed {

// Set the checksums; call when all else is in place.
void seal(Header& header) noexcept;
void seal(Trailer& trailer) noexcept;

// Why something is not accepted, as the end of a sentence; nullopt when it is. Each needs what comes before it in this
// file to have been accepted.
using Fault = std::optional<std::string>;

[[nodiscard]] Fault check(const Header& header);
// `file_bytes` is how long the file is.
[[nodiscard]] Fault check(const Trailer& trailer, const Header& header, std::uint64_t file_bytes);

// A run, and where its data begins: counted in clusters of data from the file's first on.
struct Run {
  std::uint64_t first;
  std::uint64_t count;
  RunKind kind;
  std::uint64_t data_first;

  [[nodiscard]] std::uint64_t end() const noexcept { return first + count; }
};

// The records of a packed layer in memory, taken in one after the other: frames first, then runs. What was taken is
// always consistent with itself. Thread safety: a value.
class Index {
 public:
  Index() noexcept = default;
  Index(const Header& header, const Trailer& trailer) noexcept : header_(header), trailer_(trailer) {}

  // The next record of each kind, which is taken unless there is a fault.
  [[nodiscard]] Fault take(const FrameRecord& record);
  [[nodiscard]] Fault take(const RunRecord& record);
  // All that belongs together has been taken.
  [[nodiscard]] Fault complete() const;

  [[nodiscard]] const Header& header() const noexcept { return header_; }
  [[nodiscard]] const Trailer& trailer() const noexcept { return trailer_; }
  [[nodiscard]] const std::vector<FrameRecord>& frames() const noexcept { return frames_; }
  [[nodiscard]] const std::vector<Run>& runs() const noexcept { return runs_; }

  [[nodiscard]] std::uint64_t cluster_bytes() const noexcept {
    return std::uint64_t{1} << header_.cluster_shift;
  }
  [[nodiscard]] std::uint64_t frame_bytes() const noexcept { return std::uint64_t{1} << header_.frame_shift; }
  [[nodiscard]] std::uint64_t data_clusters() const noexcept { return data_clusters_; }
  [[nodiscard]] std::uint64_t zero_clusters() const noexcept { return zero_clusters_; }
  [[nodiscard]] std::uint64_t data_bytes() const noexcept { return data_clusters_ << header_.cluster_shift; }
  // Bytes of clusters in frame `frame`: what it has to be when it is decoded.
  [[nodiscard]] std::uint64_t content_bytes(std::uint64_t frame) const noexcept;
  // The first run that ends behind cluster `cluster`; runs().size() when there is none.
  [[nodiscard]] std::size_t find(std::uint64_t cluster) const noexcept;

 private:
  Header header_{};
  Trailer trailer_{};
  std::vector<FrameRecord> frames_;
  std::vector<Run> runs_;
  std::uint64_t next_frame_at_ = k_header_bytes;
  std::uint64_t data_clusters_ = 0;
  std::uint64_t zero_clusters_ = 0;
};

// How many frames hold `data_clusters` clusters.
[[nodiscard]] std::uint64_t frames_for(std::uint64_t data_clusters, const Header& header) noexcept;

[[nodiscard]] std::string base_path(const Header& header);
// The header in the shape of a layer's superblock: identity, sizes and base; places are left zero.
[[nodiscard]] native::Superblock as_superblock(const Header& header) noexcept;

}  // namespace oxbow::packed
