// SPDX-License-Identifier: Apache-2.0
#include "jobs/cowloop/unpack_cowfile.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>
#include <vector>

#include "jobs/cowloop/open_cowfile.h"
#include "jobs/output_file.h"
#include "stores/blocking.h"
#include "targets/cowloop/bitmap_survey.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::cowloop {
namespace {

constexpr const char* k_what = "cannot unpack cowfile";
constexpr std::uint64_t k_piece_bytes = 1 << 20;

// Takes a stream apart into a cowfile. Thread safety: none.
class Unpacker {
 public:
  Unpacker(Queue& queue, const std::string& path, PackedSource& source, const StreamShape& shape, Store& out,
           const TellProgress& progress)
      : queue_(queue),
        path_(path),
        source_(source),
        shape_(shape),
        out_(out),
        progress_(progress),
        buffer_(k_piece_bytes) {}

  [[nodiscard]] Result<Head> run() {
    if (auto taken = take_head(); !taken) return std::unexpected(taken.error());
    if (auto taken = take_bitmap(); !taken) return std::unexpected(taken.error());
    if (auto taken = take_blocks(); !taken) return std::unexpected(taken.error());
    head_.packed = false;
    if (auto written = write_head(queue_, k_what, out_, head_); !written)
      return std::unexpected(written.error());
    return head_;
  }

 private:
  [[nodiscard]] std::unexpected<Error> refuse(std::string why) const {
    return std::unexpected(Error(k_what, path_, std::move(why)));
  }
  [[nodiscard]] Result<void> grow(std::uint64_t size) {
    if (size <= out_.size()) return {};
    return outcome(run_blocking(queue_, [&](Io& io) { return out_.grow(io, size); }));
  }
  [[nodiscard]] Result<void> outcome(IoStatus status) const {
    if (status.ok()) return {};
    return std::unexpected(Error::from_errno(k_what, out_.describe(), status.error_number()));
  }
  [[nodiscard]] Result<void> take_head();
  [[nodiscard]] Result<void> take_bitmap();
  [[nodiscard]] Result<void> take_blocks();
  [[nodiscard]] Result<void> take_run(Range run);
  [[nodiscard]] Result<void> put(std::uint64_t at, std::span<const std::byte> blocks);

  Queue& queue_;
  const std::string& path_;
  PackedSource& source_;
  const StreamShape shape_;
  Store& out_;
  const TellProgress& progress_;
  Head head_;
  std::uint64_t at_ = 0;  // in the stream
  std::uint64_t used_ = 0;
  std::uint64_t taken_ = 0;  // blocks
  std::vector<std::byte> buffer_;
};

Result<void> Unpacker::take_head() {
  std::array<std::byte, k_block_bytes> block{};
  const auto fields = std::span(block).first(shape_.head_bytes());
  if (auto read = read_whole(k_what, path_, source_, fields, "head", 0); !read) return read;
  auto head = packed_head(k_what, path_, block);
  if (!head) return std::unexpected(head.error());
  head_ = *head;
  at_ = fields.size();
  return {};
}

Result<void> Unpacker::take_bitmap() {
  for (std::uint64_t done = 0; done < head_.map_bytes;) {
    const std::uint64_t left = head_.map_bytes - done;
    const std::uint64_t zeros = source_.zeros(left);
    source_.skip_zeros(zeros);
    done += zeros;
    at_ += zeros;
    const auto piece = std::span(buffer_).first(std::min(k_piece_bytes, head_.map_bytes - done));
    if (auto read = read_whole(k_what, path_, source_, piece, "bitmap", at_); !read) return read;
    if (!all_zero(piece)) {
      if (auto grown = grow(k_bitmap_at + done + piece.size()); !grown) return grown;
      const IoStatus written = write_blocking(queue_, out_, k_bitmap_at + done, piece);
      if (!written.ok()) return outcome(written);
    }
    for (Range run = next_run(piece, 0); !run.empty(); run = next_run(piece, run.end())) {
      const Range blocks{(done * 8) + run.offset, run.length};
      if (blocks.end() > head_.base_blocks)
        return refuse(fmt::format("bit {} of its bitmap is set, and its rdoblocks is {}",
                                  std::max(blocks.offset, head_.base_blocks), head_.base_blocks));
      used_ += run.length;
    }
    done += piece.size();
    at_ += piece.size();
  }
  if (used_ != head_.used_blocks)
    return refuse(
        fmt::format("its cowused is {}, and {} bits of its bitmap are set", head_.used_blocks, used_));
  return grow(k_bitmap_at + head_.map_bytes);
}

Result<void> Unpacker::take_blocks() {
  if (shape_.form == Form::padded) {
    // Less than a piece; without blocks it may be missing.
    const auto gap = std::span(buffer_).first(head_.data_offset - at_);
    const auto read = source_.read(gap);
    if (!read) return std::unexpected(read.error());
    if (*read < gap.size() && used_ > 0)
      return refuse(fmt::format("it ends at byte {} of the packed stream, before its blocks", at_ + *read));
    at_ = head_.data_offset;
  }
  return for_each_run(queue_, k_what, out_, head_, [this](Range run) { return take_run(run); });
}

Result<void> Unpacker::take_run(Range run) {
  if (auto grown = grow(block_at(head_, run.end())); !grown) return grown;
  while (!run.empty()) {
    const std::uint64_t zeros = source_.zeros(run.length * k_block_bytes) / k_block_bytes;
    source_.skip_zeros(zeros * k_block_bytes);
    at_ += zeros * k_block_bytes;
    run = run.without_prefix(zeros);
    const std::uint64_t count = std::min(run.length, k_piece_bytes / k_block_bytes);
    const auto piece = std::span(buffer_).first(count * k_block_bytes);
    if (auto read = read_whole(k_what, path_, source_, piece, "blocks", at_); !read) return read;
    if (auto done = put(block_at(head_, run.offset), piece); !done) return done;
    run = run.without_prefix(count);
    at_ += piece.size();
    taken_ += zeros + count;
    if (progress_) progress_(taken_ * k_block_bytes, used_ * k_block_bytes);
  }
  return {};
}

// What is zeros stays a hole.
Result<void> Unpacker::put(std::uint64_t at, std::span<const std::byte> blocks) {
  const auto zero = [&](std::size_t i) { return all_zero(blocks.subspan(i, k_block_bytes)); };
  for (std::size_t first = 0; first < blocks.size();) {
    if (zero(first)) {
      first += k_block_bytes;
      continue;
    }
    std::size_t end = first + k_block_bytes;
    while (end < blocks.size() && !zero(end)) end += k_block_bytes;
    const IoStatus written = write_blocking(queue_, out_, at + first, blocks.subspan(first, end - first));
    if (!written.ok()) return outcome(written);
    first = end;
  }
  return {};
}

Result<Head> unpack_to(Queue& queue, const UnpackCowfile& spec, PackedSource& source,
                       const StreamShape& shape, const TellProgress& progress) {
  auto file = OutputFile::make(k_what, spec.out, spec.replace);
  if (!file) return std::unexpected(file.error());
  const auto store = FileStore::open(file->path_for_opening(), {.writable = true});
  if (!store) return std::unexpected(Error(k_what, spec.out, store.error().why()));
  auto head = unpack_stream(queue, spec.packed, source, shape, **store, progress);
  if (!head) {
    const bool ours = head.error().where() == (*store)->describe();
    return std::unexpected(Error(k_what, ours ? spec.out : head.error().where(), head.error().why()));
  }
  if (auto published = file->publish(); !published) return std::unexpected(published.error());
  return head;
}

}  // namespace

Result<Head> unpack_stream(Queue& queue, const std::string& path, PackedSource& source,
                           const StreamShape& shape, Store& out, const TellProgress& progress) {
  try {
    return Unpacker(queue, path, source, shape, out, progress).run();
  } catch (const std::bad_alloc&) {
    return std::unexpected(Error::from_errno(k_what, path, ENOMEM));
  }
}

Result<Head> unpack_cowfile(Queue& queue, const UnpackCowfile& spec, const TellProgress& progress) {
  auto packed = FileStore::open(spec.packed, {.lock = LockMode::shared});
  if (!packed) return std::unexpected(Error(k_what, spec.packed, packed.error().why()));
  std::array<std::byte, 2> start{};
  if (const IoStatus read = read_or_zeros(queue, **packed, 0, start); !read.ok())
    return std::unexpected(Error::from_errno(k_what, spec.packed, read.error_number()));
  if (!has_gzip_magic(start)) {
    PlainSource source(queue, k_what, std::move(*packed));
    return unpack_to(queue, spec, source, {}, progress);
  }
  try {
    GzipSource first(queue, k_what, *packed);
    const auto shape = shape_of(k_what, spec.packed, first);
    if (!shape) return std::unexpected(shape.error());
    GzipSource source(queue, k_what, std::move(*packed));
    return unpack_to(queue, spec, source, *shape, progress);
  } catch (const std::bad_alloc&) {
    return std::unexpected(Error::from_errno(k_what, spec.packed, ENOMEM));
  }
}

}  // namespace oxbow::cowloop
