// SPDX-License-Identifier: Apache-2.0
#pragma once

// How a file is read and written past the page cache (O_DIRECT) although callers may name any bytes.
//
// - Whole blocks from aligned memory go straight to the ring. Everything else goes through a bounce buffer; the
//   block at an edge is read, changed and written back.
// - Neighbours: whoever writes a part of a block claims it exclusively, whoever writes whole blocks claims them
//   shared. So two parts of a block are never merged with each other's past, while whole overwrites don't wait.
//   Claims are rounded to the grain, at least a page, because that is what the kernel works in when it zeroes
//   parts of a file.
// - The tail: a regular file whose size isn't a multiple of the block ends in bytes that O_DIRECT can't write
//   without making the file longer. They, from the last page boundary on, are read and written through a second,
//   ordinary descriptor, and never through the first. So each page of the inode is used in one I/O mode only,
//   the page cache holds no page but that one, and fdatasync of either descriptor covers both.

#include <atomic>
#include <cstdint>
#include <expected>
#include <string>

#include "os/iov.h"
#include "os/task.h"
#include "stores/file/file_store.h"
#include "stores/file/range_lock.h"

namespace oxbow {

// What O_DIRECT wants of a descriptor, in bytes: both powers of two.
struct DirectLimits {
  std::uint32_t block = 4096;   // offsets and lengths are multiples of it
  std::uint32_t memory = 4096;  // buffers' addresses and lengths are; at most 4096
};
// Asks the kernel; where it can't tell, the logical block of a block device, else 4096. EINVAL where direct
// I/O doesn't work.
[[nodiscard]] std::expected<DirectLimits, int> direct_limits(int fd, bool block_device) noexcept;

// A FileStore whose transfers bypass the page cache. Reads are always pending (no_wait answers would_block),
// writes mostly. Thread safety: as Store; grow() and follow_growth() have the store to themselves.
class DirectFile final : public FileStore {
 public:
  // `fd` was opened with O_DIRECT, `buffered` without it (regular files only), both of the same file.
  DirectFile(UniqueFd fd, UniqueFd buffered, std::string path, const FileOptions& options,
             const FileIdentity& identity, const DirectLimits& limits);
  ~DirectFile() override = default;

  [[nodiscard]] bool direct() const noexcept override { return true; }
  Progress read(Io& io, std::uint64_t at, std::span<std::byte> out, ReadMode mode) noexcept override;
  Progress write(Io& io, std::uint64_t at, WriteMode mode) noexcept override;
  Progress zero(Io& io, Range range, ZeroMode mode) noexcept override;
  Progress discard(Io& io, Range range) noexcept override;
  Progress grow(Io& io, std::uint64_t size) noexcept override;
  Progress follow_growth(Io& io) noexcept override;
  std::span<const std::byte> view(Range /*range*/) noexcept override { return {}; }

 private:
  enum class Emptying : std::uint8_t { punch_or_zero, allocate, discard };

  Task read_bounced(Queue& queue, std::uint64_t at, std::span<std::byte> out);
  Task write_durably(Io& io, Range range);
  Task write_claimed(Io& io, Range range, int rwf);
  // The caller holds the claim. Takes range.length bytes from `payload`.
  Task write_bounced(Queue& queue, Range range, Payload& payload, int rwf);
  // Reads into `bytes`, the memory for `cover`, those of its blocks that `part` covers only in part.
  Task read_edges(Queue& queue, Range part, Range cover, std::byte* bytes);
  Task empty_claimed(Io& io, Range range, Emptying how);

  // The bytes of io.iov, which fit the limits.
  [[nodiscard]] Progress pull(Io& io, std::uint64_t at) noexcept;
  [[nodiscard]] Progress push(Io& io, std::uint64_t at, int rwf) noexcept;
  [[nodiscard]] IoStatus empty_middle(Range range, Emptying how) noexcept;

  [[nodiscard]] bool whole_blocks(Range range) const noexcept;
  [[nodiscard]] bool aligned(const IovList& iov) const noexcept;
  [[nodiscard]] RangeLock::Claim claim(Range range, std::uint64_t whole_bytes) noexcept;
  [[nodiscard]] Progress move_tail(Io& io, bool had_tail) noexcept;
  [[nodiscard]] std::uint64_t tail_of(std::uint64_t size) const noexcept;

  UniqueFd buffered_;
  DirectLimits limits_;
  bool durable_blocks_;
  std::uint64_t grain_;  // the block; of files, at least a page
  std::atomic<std::uint64_t>
      tail_;  // from here on the bytes belong to buffered_; the size where there is no tail
  RangeLock locks_;
};

}  // namespace oxbow
