// SPDX-License-Identifier: Apache-2.0
#include "jobs/pack_layer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <thread>
#include <vector>

#include "formats/native/codec.h"
#include "jobs/open_device.h"
#include "jobs/output_file.h"
#include "jobs/scan_pages.h"
#include "os/process_info.h"
#include "stores/blocking.h"
#include "stores/open_stores.h"

namespace oxbow {
namespace {

constexpr const char* k_what = "cannot pack layer";
constexpr unsigned k_most_threads = 16;
constexpr std::size_t k_frames_per_thread = 4;  // at a time: what is read ahead of the compression

packed::Header describe(const native::Superblock& s) {
  packed::Header header{};
  header.uuid = s.uuid;
  header.epoch = s.epoch;
  header.created_ns = s.created_ns;
  header.packed_ns = now_ns();
  header.size = s.size;
  header.base_visible = s.base_visible;
  header.max_size = s.max_size;
  header.cluster_shift = s.cluster_shift;
  header.frame_shift = std::max(k_default_frame_shift, s.cluster_shift);
  header.base_path_length = s.base_path_length;
  header.base = s.base;
  std::copy_n(s.base_path.begin(), s.base_path_length, header.base_path.begin());
  return header;
}

// What this oxbow doesn't know of a layer would be lost in a packed one.
Result<void> check_features(const native::Superblock& s, const std::string& where) {
  if (s.state != native::LayerState::clean)
    return std::unexpected(Error(k_what, where, "it was not closed cleanly"));
  if ((s.incompatible & native::k_incompatible_merging) != 0) {
    return std::unexpected(
        Error(k_what, where, "a merge into its base was begun, and can only be resumed: oxbow merge"));
  }
  if (const std::uint64_t unknown = s.read_only_compatible | s.incompatible; unknown != 0) {
    return std::unexpected(
        Error(k_what, where, fmt::format("it uses features that packed layers don't have ({:#x})", unknown)));
  }
  return {};
}

// The states of one page's clusters as runs.
void add_runs(const native::StatePage& page, std::uint64_t index, std::uint64_t clusters,
              packed::Writer& writer) {
  const std::uint64_t first = index * native::k_clusters_per_page;
  const std::uint64_t end = std::min(clusters, first + native::k_clusters_per_page);
  for (std::uint64_t cluster = first; cluster < end; ++cluster) {
    const std::uint64_t in_page = cluster - first;
    const native::LeafWords& leaf = page.leaves[in_page / native::k_clusters_per_leaf];
    const std::uint64_t word = leaf[in_page % native::k_clusters_per_leaf / 32];
    const std::uint64_t state = word >> (2 * (in_page % 32)) & 3U;
    if (state != 0) writer.add_run(cluster, 1, state == 1 ? packed::RunKind::zero : packed::RunKind::data);
  }
}

Result<void> collect_runs(Queue& queue, Store& layer, const LayerHead& head, packed::Writer& writer) {
  const std::uint64_t clusters = native::cluster_count(head.superblock.size, head.superblock.cluster_shift);
  return scan_pages(
      queue, layer, head.superblock, [&](std::uint64_t index, const PageSlots& slots) -> Result<void> {
        for (const IoStatus& read : slots.read) {
          if (read.ok()) continue;
          return std::unexpected(Error::from_errno(fmt::format("cannot read state page {}", index),
                                                   layer.describe(), read.error_number()));
        }
        const PageContent content = choose_page(slots.pages[0], slots.pages[1], index, head);
        if (content.damaged) {
          return std::unexpected(Error(
              k_what, layer.describe(),
              fmt::format("state page {} is damaged, so it isn't known what the layer holds: oxbow check",
                          index)));
        }
        if (!content.empty) add_runs(content.page, index, clusters, writer);
        return {};
      });
}

// Reads a layer's data clusters one after the other. Thread safety: none.
class DataReader {
 public:
  DataReader(Queue& queue, Store& layer, const native::Superblock& superblock,
             const std::vector<packed::RunRecord>& runs)
      : queue_(queue), layer_(layer), superblock_(superblock), runs_(runs) {}

  // As many of the next bytes as there are, up to `limit`; none at the end.
  [[nodiscard]] Result<void> next(std::uint64_t limit, std::vector<std::byte>& out) {
    out.clear();
    while (run_ < runs_.size() && out.size() < limit) {
      const packed::RunRecord& run = runs_[run_];
      const std::uint64_t bytes = run.count << superblock_.cluster_shift;
      if (run.kind != packed::RunKind::data || done_ == bytes) {
        ++run_;
        done_ = 0;
        continue;
      }
      const std::uint64_t length = std::min(limit - out.size(), bytes - done_);
      const std::uint64_t at = (run.first << superblock_.cluster_shift) + done_;
      const std::size_t before = out.size();
      out.resize(before + length);
      const auto piece = std::span(out).subspan(before);
      const IoStatus read = read_blocking(queue_, layer_, superblock_.data_offset + at, piece);
      if (!read.ok()) {
        return std::unexpected(Error::from_errno(fmt::format("cannot read layer at byte {}", at),
                                                 layer_.describe(), read.error_number()));
      }
      // What the last cluster holds beyond the device's end is nothing of the device.
      if (at + length > superblock_.size) {
        const std::uint64_t beyond = std::min(length, at + length - superblock_.size);
        std::ranges::fill(piece.last(beyond), std::byte{0});
      }
      done_ += length;
    }
    return {};
  }

 private:
  Queue& queue_;
  Store& layer_;
  const native::Superblock& superblock_;
  const std::vector<packed::RunRecord>& runs_;
  std::size_t run_ = 0;
  std::uint64_t done_ = 0;  // bytes of that run
};

struct Frame {
  std::vector<std::byte> content;
  std::vector<std::byte> stored;
  packed::FrameRecord record{};
};

// Compresses all frames, each thread with a compressor of its own. False when memory is short.
bool compress(std::span<Frame> frames, std::vector<packed::Compressor>& compressors) {
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  const auto work = [&](packed::Compressor& compressor) noexcept {
    try {
      for (std::size_t i = next++; i < frames.size(); i = next++)
        frames[i].record = compressor.encode(frames[i].content, frames[i].stored);
    } catch (const std::bad_alloc&) {
      failed = true;
    }
  };
  {
    std::vector<std::jthread> others;
    const std::size_t wanted = std::min(compressors.size(), frames.size());
    for (std::size_t i = 1; i < wanted; ++i) others.emplace_back(work, std::ref(compressors[i]));
    work(compressors.front());
  }
  return !failed;
}

std::uint64_t bytes_of(const std::vector<packed::RunRecord>& runs, packed::RunKind kind,
                       std::uint32_t shift) {
  std::uint64_t clusters = 0;
  for (const packed::RunRecord& run : runs) clusters += run.kind == kind ? run.count : 0;
  return clusters << shift;
}

Result<void> write_frames(DataReader& reader, const packed::Header& header, int level, unsigned threads,
                          packed::Writer& writer, const ReportProgress& progress, std::uint64_t total) {
  std::vector<packed::Compressor> compressors;
  for (unsigned i = 0; i < threads; ++i) compressors.emplace_back(level);
  std::vector<Frame> frames(threads * k_frames_per_thread);
  std::uint64_t done = 0;
  while (done < total) {
    std::size_t count = 0;
    for (; count < frames.size(); ++count) {
      if (auto read = reader.next(std::uint64_t{1} << header.frame_shift, frames[count].content); !read)
        return read;
      if (frames[count].content.empty()) break;
    }
    const auto batch = std::span(frames).first(count);
    if (!compress(batch, compressors)) return std::unexpected(Error::from_errno(k_what, "memory", ENOMEM));
    for (const Frame& frame : batch) {
      if (auto added = writer.add_frame(frame.record, frame.stored); !added) return added;
      done += frame.content.size();
    }
    if (progress) progress(done, total);
  }
  return {};
}

Result<void> append_all(int fd, std::span<const std::byte> bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0)
      return std::unexpected(Error::from_errno("cannot write packed layer", path, written < 0 ? errno : EIO));
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return {};
}

Result<OpenedDevice> open_to_read(Queue& queue, const PackSpec& spec) {
  return open_device(queue, LayerSpec{spec.layer},
                     {.name = spec.layer, .writable = false, .accept_base = spec.accept_base});
}

// Opened to be written and closed again, a layer is clean.
Result<void> recover(Queue& queue, const PackSpec& spec) {
  auto opened =
      open_device(queue, LayerSpec{spec.layer}, {.name = spec.layer, .accept_base = spec.accept_base});
  if (!opened) return std::unexpected(opened.error());
  const IoStatus closed = opened->device->close(queue);
  if (closed.ok()) return {};
  return std::unexpected(Error::from_errno("cannot recover layer", spec.layer, closed.error_number()));
}

// The layer's own file, held by `opened`, and its head.
struct OpenedLayer {
  OpenedDevice opened;
  std::shared_ptr<FileStore> store;
  LayerHead head;
};

Result<OpenedLayer> open_clean(Queue& queue, const PackSpec& spec, bool again = false) {
  auto opened = open_to_read(queue, spec);
  if (!opened) return std::unexpected(opened.error());
  auto store = opened->stores->open_file(spec.layer, {.lock = LockMode::shared});
  if (!store) return std::unexpected(store.error());
  auto head = read_layer_head(queue, **store);
  if (!head) return std::unexpected(head.error());
  if (head->superblock.state == native::LayerState::clean || again)
    return OpenedLayer{std::move(*opened), std::move(*store), std::move(*head)};
  store->reset();
  *opened = {};
  if (auto recovered = recover(queue, spec); !recovered) return std::unexpected(recovered.error());
  return open_clean(queue, spec, true);
}

}  // namespace

Result<PackReport> write_packed(Queue& queue, Store& layer, const LayerHead& head, int level,
                                unsigned threads, packed::Writer::Append append,
                                const ReportProgress& progress) {
  const native::Superblock& superblock = head.superblock;
  if (auto checked = check_features(superblock, layer.describe()); !checked)
    return std::unexpected(checked.error());
  const packed::Header header = describe(superblock);
  packed::Writer writer(header, std::move(append));
  PackReport report;
  try {
    if (auto begun = writer.begin(); !begun) return std::unexpected(begun.error());
    if (auto collected = collect_runs(queue, layer, head, writer); !collected)
      return std::unexpected(collected.error());
    report.data_bytes = bytes_of(writer.runs(), packed::RunKind::data, superblock.cluster_shift);
    report.zero_bytes = bytes_of(writer.runs(), packed::RunKind::zero, superblock.cluster_shift);
    if (progress) progress(0, report.data_bytes);
    DataReader reader(queue, layer, superblock, writer.runs());
    auto written = write_frames(reader, header, level, threads, writer, progress, report.data_bytes);
    if (written) written = writer.finish();
    if (!written) return std::unexpected(written.error());
  } catch (const std::bad_alloc&) {
    return std::unexpected(Error::from_errno(k_what, layer.describe(), ENOMEM));
  }
  report.packed_bytes = writer.file_bytes();
  return report;
}

Result<PackReport> pack_layer(Queue& queue, const PackSpec& spec, const ReportProgress& progress) {
  auto layer = open_clean(queue, spec);
  if (!layer) return std::unexpected(layer.error());
  auto file = OutputFile::make(k_what, spec.out, spec.replace);
  if (!file) return std::unexpected(file.error());
  const unsigned threads = std::clamp(std::thread::hardware_concurrency(), 1U, k_most_threads);
  auto report = write_packed(
      queue, *layer->store, layer->head, spec.level, threads,
      [&](std::span<const std::byte> bytes) { return append_all(file->fd(), bytes, spec.out); }, progress);
  const IoStatus closed = layer->opened.device->close(queue);
  if (!report) return report;
  if (!closed.ok())
    return std::unexpected(Error::from_errno("cannot close layer", spec.layer, closed.error_number()));
  if (auto published = file->publish(); !published) return std::unexpected(published.error());
  return report;
}

}  // namespace oxbow
