// SPDX-License-Identifier: Apache-2.0
#include "jobs/cowloop/pack_cowfile.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>
#include <vector>

#include "formats/cowloop/gzip.h"
#include "jobs/cowloop/open_cowfile.h"
#include "jobs/output_file.h"
#include "stores/blocking.h"
#include "targets/cowloop/bitmap_survey.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::cowloop {
namespace {

constexpr const char* k_what = "cannot pack cowfile";
constexpr std::uint64_t k_piece_bytes = 1 << 20;

// Bytes to a file from its beginning on; zeros are left out as holes. Thread safety: none.
class FileSink final : public PackedSink {
 public:
  FileSink(int fd, const std::string& path) : fd_(fd), path_(path) {}

  [[nodiscard]] Result<void> add(std::span<const std::byte> bytes) override {
    while (!bytes.empty()) {
      const ssize_t written = ::pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(at_));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) return std::unexpected(Error::from_errno(k_what, path_, written < 0 ? errno : EIO));
      bytes = bytes.subspan(static_cast<std::size_t>(written));
      at_ += static_cast<std::uint64_t>(written);
    }
    return {};
  }
  [[nodiscard]] Result<void> add_zeros(std::uint64_t bytes) override {
    at_ += bytes;
    return {};
  }
  // The file ends here, and not before.
  [[nodiscard]] Result<void> finish() const {
    if (::ftruncate(fd_, static_cast<off_t>(at_)) == 0) return {};
    return std::unexpected(Error::from_errno(k_what, path_, errno));
  }
  [[nodiscard]] std::uint64_t at() const noexcept { return at_; }

 private:
  int fd_;
  const std::string& path_;
  std::uint64_t at_ = 0;
};

// Thread safety: none.
class GzipSink final : public PackedSink {
 public:
  explicit GzipSink(FileSink& file)
      : deflater_([&file](std::span<const std::byte> bytes) { return file.add(bytes); }),
        zeros_(k_piece_bytes) {}

  [[nodiscard]] Result<void> add(std::span<const std::byte> bytes) override { return deflater_.add(bytes); }
  [[nodiscard]] Result<void> add_zeros(std::uint64_t bytes) override {
    while (bytes > 0) {
      const auto piece = std::span(zeros_).first(std::min<std::uint64_t>(bytes, zeros_.size()));
      if (auto added = add(piece); !added) return added;
      bytes -= piece.size();
    }
    return {};
  }
  [[nodiscard]] Result<void> finish() { return deflater_.finish(); }

 private:
  Deflater deflater_;
  const std::vector<std::byte> zeros_;
};

// Copies parts of the file into the stream. Thread safety: none.
class Copier {
 public:
  Copier(Queue& queue, Store& cowfile, PackedSink& sink)
      : queue_(queue), cowfile_(cowfile), sink_(sink), buffer_(k_piece_bytes) {}

  // Each time after so many bytes more.
  std::function<void(std::uint64_t bytes)> copied;

  [[nodiscard]] Result<void> copy(Range range) {
    while (!range.empty()) {
      Extents extents;
      (void)cowfile_.extents(range, extents);
      const bool zero = extents[0].kind == Kind::zero;
      const Range piece = range.prefix(zero ? extents[0].length : std::min(extents[0].length, k_piece_bytes));
      if (auto added = zero ? sink_.add_zeros(piece.length) : copy_data(piece); !added) return added;
      range = range.without_prefix(piece.length);
      if (copied) copied(piece.length);
    }
    return {};
  }

 private:
  [[nodiscard]] Result<void> copy_data(Range piece) {
    const auto bytes = std::span(buffer_).first(piece.length);
    const IoStatus read = read_blocking(queue_, cowfile_, piece.offset, bytes);
    if (read.ok()) return sink_.add(bytes);
    return std::unexpected(Error::from_errno(k_what, cowfile_.describe(), read.error_number()));
  }

  Queue& queue_;
  Store& cowfile_;
  PackedSink& sink_;
  std::vector<std::byte> buffer_;
};

}  // namespace

Result<void> pack_stream(Queue& queue, Store& cowfile, const Head& head, Form form, PackedSink& sink,
                         const TellProgress& progress) {
  Head packed = head;
  packed.packed = true;
  std::array<std::byte, k_block_bytes> block{};
  encode(packed, block);
  const auto start = std::span(block).first(form == Form::padded ? k_block_bytes : fields_bytes(head.layout));
  if (auto added = sink.add(start); !added) return added;
  Copier copier(queue, cowfile, sink);
  if (auto copied = copier.copy({k_bitmap_at, head.map_bytes}); !copied) return copied;
  if (form == Form::padded && head.used_blocks > 0) {
    if (auto added = sink.add_zeros(head.data_offset - k_bitmap_at - head.map_bytes); !added) return added;
  }
  std::uint64_t done = 0;
  copier.copied = [&](std::uint64_t bytes) {
    done += bytes;
    if (progress) progress(done, head.used_blocks * k_block_bytes);
  };
  return for_each_run(queue, k_what, cowfile, head, [&](Range run) {
    return copier.copy({block_at(head, run.offset), run.length * k_block_bytes});
  });
}

Result<PackedCowfile> pack_cowfile(Queue& queue, const PackCowfile& spec, const TellProgress& progress) {
  const auto opened = open_sound_cowfile(queue, k_what, spec.cowfile);
  if (!opened) return std::unexpected(opened.error());
  auto file = OutputFile::make(k_what, spec.out, spec.replace);
  if (!file) return std::unexpected(file.error());
  FileSink sink(file->fd(), spec.out);
  try {
    Result<void> packed;
    if (spec.gzip) {
      GzipSink gzip(sink);
      packed = pack_stream(queue, *opened->store, opened->head, Form::gapless, gzip, progress);
      if (packed) packed = gzip.finish();
    } else {
      packed = pack_stream(queue, *opened->store, opened->head, Form::padded, sink, progress);
      if (packed) packed = sink.finish();
    }
    if (!packed) return std::unexpected(packed.error());
  } catch (const std::bad_alloc&) {
    return std::unexpected(Error::from_errno(k_what, spec.cowfile, ENOMEM));
  }
  if (auto published = file->publish(); !published) return std::unexpected(published.error());
  return PackedCowfile{opened->head.used_blocks * k_block_bytes, sink.at()};
}

}  // namespace oxbow::cowloop
