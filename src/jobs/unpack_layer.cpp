// SPDX-License-Identifier: Apache-2.0
#include "jobs/unpack_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <optional>

#include "formats/native/codec.h"
#include "jobs/output_file.h"
#include "os/no_cow.h"
#include "os/process_info.h"
#include "stores/blocking.h"
#include "stores/open_stores.h"
#include "targets/cow/layer_file.h"
#include "targets/cow/open_layer.h"

namespace oxbow {
namespace {

constexpr const char* k_what = "cannot unpack layer";
constexpr std::uint64_t k_piece_bytes = 1 << 20;

Error failed_at(const char* what, const Store& layer, IoStatus status) {
  return Error::from_errno(what, layer.describe(), status.error_number());
}

Result<void> copy_run(Queue& queue, PackedStore& from, Store& layer, const native::Superblock& superblock,
                      const packed::Run& run, const std::function<void(std::uint64_t)>& copied) {
  std::vector<std::byte> piece;
  const std::uint64_t length = run.count << superblock.cluster_shift;
  for (std::uint64_t done = 0; done < length; done += piece.size()) {
    piece.resize(std::min(k_piece_bytes, length - done));
    const std::uint64_t at = (run.data_first << superblock.cluster_shift) + done;
    const IoStatus read = read_blocking(queue, from, at, piece);
    if (!read.ok()) {
      if (std::string damage = from.damage(); !damage.empty())
        return std::unexpected(Error(k_what, from.describe(), std::move(damage)));
      return std::unexpected(failed_at("cannot read packed layer", from, read));
    }
    const std::uint64_t place = superblock.data_offset + (run.first << superblock.cluster_shift) + done;
    const IoStatus written = write_blocking(queue, layer, place, piece);
    if (!written.ok()) return std::unexpected(failed_at(k_what, layer, written));
    copied(piece.size());
  }
  return {};
}

Result<void> copy_data(Queue& queue, PackedStore& from, Store& layer, const native::Superblock& superblock,
                       const ReportProgress& progress) {
  const std::uint64_t total = from.index().data_bytes();
  std::uint64_t done = 0;
  const auto copied = [&](std::uint64_t bytes) {
    done += bytes;
    if (progress) progress(done, total);
  };
  if (progress) progress(0, total);
  for (const packed::Run& run : from.index().runs()) {
    if (run.kind != packed::RunKind::data) continue;
    if (auto written = copy_run(queue, from, layer, superblock, run, copied); !written) return written;
  }
  return {};
}

// Writes the state pages, one after the other. Thread safety: none.
class PageWriter {
 public:
  PageWriter(Queue& queue, Store& layer, const native::Superblock& superblock)
      : queue_(queue), layer_(layer), superblock_(superblock) {}

  // Runs ascend.
  [[nodiscard]] Result<void> add(const packed::Run& run) {
    for (std::uint64_t cluster = run.first; cluster < run.end(); ++cluster) {
      const std::uint64_t index = cluster / native::k_clusters_per_page;
      if (page_ == nullptr || page_->index != index) {
        if (auto written = finish(); !written) return written;
        begin(index);
      }
      const std::uint64_t in_page = cluster % native::k_clusters_per_page;
      std::uint64_t& word =
          page_->leaves[in_page / native::k_clusters_per_leaf][in_page % native::k_clusters_per_leaf / 32];
      word |= static_cast<std::uint64_t>(run.kind) << (2 * (in_page % 32));
    }
    return {};
  }
  // The page that was begun, if any.
  [[nodiscard]] Result<void> finish() {
    if (page_ == nullptr) return {};
    native::seal(*page_, superblock_.salt);
    for (const std::uint64_t slot : superblock_.slot_offset) {
      const Range room{slot + (page_->index * native::k_page_bytes), native::k_page_bytes};
      const IoStatus allocated = run_blocking(queue_, [&](Io& io) { return layer_.allocate(io, room); });
      if (!allocated.ok() && allocated.error_number() != EOPNOTSUPP)
        return std::unexpected(failed_at(k_what, layer_, allocated));
    }
    const std::uint64_t at = native::slot_at(superblock_, 0, page_->index);
    const IoStatus written = write_struct(queue_, layer_, at, *page_);
    if (!written.ok()) return std::unexpected(failed_at(k_what, layer_, written));
    page_.reset();
    return {};
  }

 private:
  void begin(std::uint64_t index) {
    page_ = std::make_unique<native::StatePage>();
    page_->magic = native::k_page_magic;
    page_->index = index;
    page_->epoch = superblock_.epoch;
    page_->flush_number = 1;
  }

  Queue& queue_;
  Store& layer_;
  const native::Superblock& superblock_;
  std::unique_ptr<native::StatePage> page_;
};

// As a clean close leaves it: the last flush wrote nothing that could be torn.
Result<void> write_record(Queue& queue, Store& layer, const native::Superblock& superblock) {
  const auto record = std::make_unique<native::FlushRecord>();
  record->magic = native::k_record_magic;
  record->epoch = superblock.epoch;
  record->flush_number = 1;
  native::seal(*record, superblock.salt);
  const IoStatus written = write_struct(queue, layer, superblock.record_offset[0], *record);
  if (!written.ok()) return std::unexpected(failed_at(k_what, layer, written));
  return {};
}

Result<native::BaseRecord> sample_again(Queue& queue, const UnpackSpec& spec,
                                        const native::Superblock& recorded, const native::Uuid& uuid) {
  const auto refuse = [&](const Error& why) {
    return std::unexpected(
        Error(k_what, spec.out,
              "its base can't be used: " + why.text() + "; with --keep-uuid the base isn't needed"));
  };
  OpenStores stores;
  OpenContext context{.queue = queue, .stores = stores, .accept_base = spec.accept_base};
  const auto same = open_base_of(context, spec.out, nullptr, recorded, 1);
  if (!same) return refuse(same.error());
  const std::string path = resolve_base_path(spec.out, native::base_path(recorded));
  auto described = describe_base(context, path, native::BaseKind::raw, uuid);
  if (!described) return refuse(described.error());
  described->record.flags = recorded.base.flags;
  described->record.sha256 = recorded.base.sha256;
  return described->record;
}

// The superblock of the layer that is to be made.
Result<native::Superblock> describe_unpacked(Queue& queue, const UnpackSpec& spec,
                                             const packed::Header& header) {
  const native::Superblock recorded = packed::as_superblock(header);
  LayerDescription description;
  description.uuid = header.uuid;
  if (!fill_random(std::as_writable_bytes(std::span(&description.salt, 1))) ||
      (!spec.keep_uuid && !fill_random(std::as_writable_bytes(std::span(description.uuid))))) {
    return std::unexpected(Error(k_what, "random numbers", "the kernel has none to give"));
  }
  description.size_bytes = header.size;
  description.cluster_shift = header.cluster_shift;
  description.max_size_bytes = header.max_size;
  description.created_ns = spec.keep_uuid ? header.created_ns : now_ns();
  description.base = header.base;
  description.base_path = packed::base_path(header);
  if (header.base.kind == native::BaseKind::raw && !spec.keep_uuid) {
    auto base = sample_again(queue, spec, recorded, description.uuid);
    if (!base) return std::unexpected(base.error());
    description.base = *base;
  }
  auto superblock = describe_layer(description);
  if (!superblock) return std::unexpected(Error(k_what, spec.packed, superblock.error().why()));
  superblock->base_visible = header.base_visible;
  // What was made over this very layer knows it by its epoch.
  if (spec.keep_uuid) superblock->epoch = header.epoch;
  superblock->absent_before = superblock->epoch;
  if (auto why = native::contradiction(*superblock))
    return std::unexpected(Error(k_what, spec.packed, std::move(*why)));
  return superblock;
}

// Rather now than after an hour: what the layer takes at least.
Result<void> check_room(const PackedStore& from, const Store& layer, const std::string& out) {
  const auto free = layer.facts().free_bytes;
  std::uint64_t pages = 0;
  std::uint64_t next = 0;
  for (const packed::Run& run : from.index().runs()) {
    const std::uint64_t first = std::max(next, run.first / native::k_clusters_per_page);
    const std::uint64_t end = ((run.end() - 1) / native::k_clusters_per_page) + 1;
    if (end > first) pages += end - first;
    next = std::max(next, end);
  }
  const std::uint64_t needed = from.index().data_bytes() + (2 * pages * native::k_page_bytes);
  if (!free || needed <= *free) return {};
  return std::unexpected(
      Error(k_what, out, fmt::format("it needs {} bytes, its file system has {} free", needed, *free)));
}

}  // namespace

Result<void> write_unpacked(Queue& queue, PackedStore& from, Store& layer,
                            const native::Superblock& superblock, const ReportProgress& progress) {
  const std::uint64_t length = native::file_bytes(superblock);
  const IoStatus grown = run_blocking(queue, [&](Io& io) { return layer.grow(io, length); });
  if (!grown.ok()) return std::unexpected(failed_at(k_what, layer, grown));
  if (auto copied = copy_data(queue, from, layer, superblock, progress); !copied) return copied;
  PageWriter pages(queue, layer, superblock);
  for (const packed::Run& run : from.index().runs()) {
    if (auto added = pages.add(run); !added) return added;
  }
  if (auto finished = pages.finish(); !finished) return finished;
  if (auto written = write_record(queue, layer, superblock); !written) return written;
  IoStatus status = sync_blocking(queue, layer);
  if (status.ok()) status = write_superblocks(queue, layer, superblock, 0);
  if (!status.ok()) return std::unexpected(failed_at(k_what, layer, status));
  return {};
}

Result<PackReport> unpack_layer(Queue& queue, const UnpackSpec& spec, const ReportProgress& progress) {
  OpenStores stores;
  auto file = stores.open_file(spec.packed, {.lock = LockMode::shared});
  if (!file) return std::unexpected(file.error());
  auto from = PackedStore::open(queue, *file, k_piece_bytes * 2);
  if (!from) return std::unexpected(from.error());
  const auto superblock = describe_unpacked(queue, spec, (*from)->index().header());
  if (!superblock) return std::unexpected(superblock.error());

  auto out = OutputFile::make(k_what, spec.out, spec.replace);
  if (!out) return std::unexpected(out.error());
  if (const int error = set_no_cow(out->fd()); error != 0)
    return std::unexpected(Error::from_errno(k_what, spec.out, error));
  auto layer = stores.open_file(out->path_for_opening(), {.writable = true, .lock = LockMode::exclusive});
  if (!layer) return std::unexpected(Error(k_what, spec.out, layer.error().why()));
  if (auto room = check_room(**from, **layer, spec.out); !room) return std::unexpected(room.error());
  if (auto written = write_unpacked(queue, **from, **layer, *superblock, progress); !written) {
    const Error& error = written.error();
    const bool ours = error.where() == (*layer)->describe();
    return std::unexpected(Error(error.what(), ours ? spec.out : error.where(), error.why()));
  }
  if (auto published = out->publish(); !published) return std::unexpected(published.error());
  const packed::Index& index = (*from)->index();
  return PackReport{.data_bytes = index.data_bytes(),
                    .zero_bytes = index.zero_clusters() * index.cluster_bytes(),
                    .packed_bytes = index.trailer().file_bytes};
}

}  // namespace oxbow
