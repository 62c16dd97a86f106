// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <vector>

#include "formats/native/codec.h"
#include "jobs/cowloop/convert_cowfile.h"
#include "jobs/cowloop/cowfile_writer.h"
#include "jobs/cowloop/open_cowfile.h"
#include "jobs/map_device.h"
#include "jobs/open_device.h"
#include "jobs/output_file.h"
#include "stores/blocking.h"
#include "stores/open_stores.h"
#include "targets/cow/layer_head.h"
#include "targets/cow/open_layer.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::cowloop {
namespace {

constexpr const char* k_what = "cannot convert layer";
constexpr std::uint64_t k_piece_bytes = 1 << 20;  // a multiple of every cluster

std::unexpected<Error> refuse(const std::string& where, std::string why) {
  return std::unexpected(Error(k_what, where, std::move(why)));
}

// Takes what a layer itself has, cluster by cluster. Thread safety: none.
class Taker {
 public:
  Taker(Queue& queue, Device& device, Store& base, const Head& head, std::uint64_t cluster_bytes,
        CowfileWriter& writer)
      : queue_(queue),
        device_(device),
        base_(base),
        device_end_(head.device_bytes()),
        cluster_bytes_(cluster_bytes),
        writer_(writer) {}

  [[nodiscard]] Result<void> take(const MappedExtent& extent) {
    if (extent.layer != 0) return {};
    if (extent.kind == Kind::error)
      return refuse(device_.name(),
                    fmt::format("bytes {} to {} of it can't be read: oxbow check names what is damaged",
                                extent.range.offset, extent.range.end() - 1));
    Range rest = extent.range;
    while (!rest.empty()) {
      const Range piece = rest.prefix(k_piece_bytes - (rest.offset % k_piece_bytes));
      if (auto added = add(piece, extent.kind == Kind::zero); !added) return added;
      rest = rest.without_prefix(piece.length);
    }
    return {};
  }
  // What is gathered.
  [[nodiscard]] Result<void> flush() {
    if (gathered_.empty()) return {};
    auto taken = take_piece(gathered_, zero_);
    gathered_ = {};
    return taken;
  }

 private:
  // A cluster may come in parts, for holes of its file are told by themselves; what is gathered are whole ones.
  [[nodiscard]] Result<void> add(Range piece, bool zero) {
    const bool goes_on =
        !gathered_.empty() && gathered_.end() == piece.offset && piece.offset % k_piece_bytes != 0;
    if (goes_on) {
      gathered_.length += piece.length;
      zero_ = zero_ && zero;
      return {};
    }
    if (auto flushed = flush(); !flushed) return flushed;
    gathered_ = piece;
    zero_ = zero;
    return {};
  }
  [[nodiscard]] bool hole_in_base(Range piece) {
    Extents extents;
    (void)base_.extents(piece, extents);
    return extents[0].kind == Kind::zero && extents[0].length >= piece.length;
  }
  [[nodiscard]] Result<void> take_piece(Range piece, bool zero) {
    const Range whole = piece.prefix(device_end_ - std::min(device_end_, piece.offset));
    if (zero && hole_in_base(piece))
      return writer_.add_zeros({whole.offset / k_block_bytes, whole.length / k_block_bytes});
    ours_.resize(piece.length);
    base_bytes_.resize(piece.length);
    IoStatus read = run_blocking(queue_, [&](Io& io) { return device_.read(io, piece.offset, ours_); });
    if (!read.ok()) return failed(device_.name(), read);
    read = read_blocking(queue_, base_, piece.offset, base_bytes_);
    if (!read.ok()) return failed(base_.describe(), read);
    // The part of a block at the base's end, which no cowfile has.
    if (differs(whole.length, piece.length))
      return refuse(device_.name(),
                    fmt::format("it has changes behind byte {}, where the last whole block of {} bytes "
                                "of its base ends",
                                device_end_, k_block_bytes));
    for (std::uint64_t at = 0; at < whole.length; at += cluster_bytes_) {
      if (auto added = add_cluster(piece.offset, at, std::min(whole.length, at + cluster_bytes_)); !added)
        return added;
    }
    return {};
  }
  [[nodiscard]] bool differs(std::uint64_t from, std::uint64_t to) const {
    const auto part = [&](const std::vector<std::byte>& bytes) {
      return std::span(bytes).subspan(from, to - from);
    };
    return !std::ranges::equal(part(ours_), part(base_bytes_));
  }
  // The cluster at [begin, end) of the piece that begins at `offset` of the device.
  [[nodiscard]] Result<void> add_cluster(std::uint64_t offset, std::uint64_t begin, std::uint64_t end) {
    const bool all = !differs(begin, end);
    for (std::uint64_t at = begin; at < end;) {
      std::uint64_t stop = at;
      while (stop < end && (all || differs(stop, stop + k_block_bytes))) stop += k_block_bytes;
      const auto blocks = std::span(ours_).subspan(at, stop - at);
      if (auto added = writer_.add((offset + at) / k_block_bytes, blocks); !added) return added;
      at = std::max(stop, at + k_block_bytes);
    }
    return {};
  }
  [[nodiscard]] static std::unexpected<Error> failed(const std::string& where, IoStatus status) {
    return std::unexpected(Error::from_errno(k_what, where, status.error_number()));
  }

  Queue& queue_;
  Device& device_;
  Store& base_;
  const std::uint64_t device_end_;
  const std::uint64_t cluster_bytes_;
  CowfileWriter& writer_;
  Range gathered_{};   // within one piece
  bool zero_ = false;  // all of it
  std::vector<std::byte> ours_;
  std::vector<std::byte> base_bytes_;
};

// The layer that is open, and its base.
struct Source {
  OpenedDevice opened;
  native::Superblock superblock;
  std::shared_ptr<FileStore> base;
};

Result<Source> open_source(Queue& queue, const std::string& layer) {
  auto opened = open_device(queue, LayerSpec{layer}, {.name = layer, .writable = false});
  if (!opened) return std::unexpected(opened.error());
  const auto store = opened->stores->open_file(layer, {.lock = LockMode::shared});
  if (!store) return std::unexpected(store.error());
  const auto head = read_layer_head(queue, **store);
  if (!head) return std::unexpected(head.error());
  const native::Superblock& superblock = head->superblock;
  if (superblock.base.kind != native::BaseKind::raw)
    return refuse(
        layer,
        "its base is a layer too, and a cowfile can only be over a file: merge it into its base first");
  const std::string base_path = resolve_base_path(layer, native::base_path(superblock));
  auto base = open_base(k_what, base_path, Use::read);
  if (!base) return std::unexpected(base.error());
  if ((*base)->size() != superblock.size)
    return refuse(
        layer, fmt::format("its device has {} bytes, and its base {} has {}: a cowfile is never longer than "
                           "its read-only file",
                           superblock.size, base_path, (*base)->size()));
  return Source{std::move(*opened), superblock, std::move(*base)};
}

Result<Head> write_cowfile(Queue& queue, Source& source, Store& out, const Head& fresh,
                           const TellProgress& progress) {
  CowfileWriter writer(queue, k_what, out, fresh);
  Taker taker(queue, *source.opened.device, *source.base, fresh,
              std::uint64_t{1} << source.superblock.cluster_shift, writer);
  const auto taken = map_device(queue, *source.opened.device, [&](const MappedExtent& extent) {
    if (progress) progress(extent.range.offset, source.superblock.size);
    return taker.take(extent);
  });
  if (!taken) return std::unexpected(taken.error());
  if (auto flushed = taker.flush(); !flushed) return std::unexpected(flushed.error());
  return writer.finish();
}

}  // namespace

Result<Head> convert_to_cowfile(Queue& queue, const ConvertToCowfile& spec, const TellProgress& progress) {
  auto source = open_source(queue, spec.layer);
  if (!source) return std::unexpected(source.error());
  const auto blocks = base_blocks(k_what, *source->base, spec.layout);
  if (!blocks) return std::unexpected(blocks.error());
  const auto fingerprint = fingerprint_of(queue, k_what, *source->base);
  if (!fingerprint) return std::unexpected(fingerprint.error());
  std::error_code error;
  if (std::filesystem::symlink_status(spec.out, error).type() != std::filesystem::file_type::not_found)
    return refuse(spec.out, error ? error.message() : "it exists already");
  auto file = OutputFile::make(k_what, spec.out, false);
  if (!file) return std::unexpected(file.error());
  const auto out = FileStore::open(file->path_for_opening(), {.writable = true});
  if (!out) return std::unexpected(Error(k_what, spec.out, out.error().why()));
  auto head = write_cowfile(queue, *source, **out, fresh_head(spec.layout, *blocks, *fingerprint), progress);
  if (!head) {
    const bool ours = head.error().where() == (*out)->describe();
    return std::unexpected(Error(k_what, ours ? spec.out : head.error().where(), head.error().why()));
  }
  const IoStatus closed = source->opened.device->close(queue);
  if (!closed.ok()) return std::unexpected(Error::from_errno(k_what, spec.layer, closed.error_number()));
  if (auto published = file->publish(); !published) return std::unexpected(published.error());
  return head;
}

}  // namespace oxbow::cowloop
