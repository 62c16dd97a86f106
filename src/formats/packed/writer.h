// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "formats/packed/layout.h"
#include "oxbow/error.h"

namespace oxbow::packed {

// Puts a packed layer together, from its first byte to its last: begin(), runs and frames as they come, finish().
// Thread safety: one thread at a time.
class Writer {
 public:
  // Takes the file's next bytes; its errors are passed on.
  using Append = std::function<Result<void>(std::span<const std::byte>)>;

  // Of `header` magic, version and checksum are set here.
  Writer(const Header& header, Append append);

  [[nodiscard]] Result<void> begin();
  // Clusters, ascending; neighbours of one kind become one run.
  void add_run(std::uint64_t first, std::uint64_t count, RunKind kind);
  // The next frame, as Compressor::encode() made it: of all data clusters in order, 2^frame_shift bytes each, the last
  // one what is left.
  [[nodiscard]] Result<void> add_frame(FrameRecord record, std::span<const std::byte> stored);
  [[nodiscard]] Result<void> finish();

  [[nodiscard]] const std::vector<RunRecord>& runs() const noexcept { return runs_; }
  // So far.
  [[nodiscard]] std::uint64_t file_bytes() const noexcept { return file_bytes_; }

 private:
  [[nodiscard]] Result<void> append(std::span<const std::byte> bytes);

  Header header_;
  Append append_;
  std::vector<FrameRecord> frames_;
  std::vector<RunRecord> runs_;
  std::uint64_t file_bytes_ = 0;
};

}  // namespace oxbow::packed
