// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <vector>

#include "device/device.h"
#include "jobs/cowloop/convert_cowfile.h"
#include "jobs/cowloop/open_cowfile.h"
#include "jobs/create_layer.h"
#include "jobs/open_device.h"
#include "os/process_info.h"
#include "stores/blocking.h"
#include "targets/cowloop/bitmap_survey.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::cowloop {
namespace {

namespace fs = std::filesystem;

constexpr const char* k_what = "cannot convert cowfile";
constexpr std::uint64_t k_piece_bytes = 1 << 20;

std::string directory_of(const std::string& path) {
  const fs::path parent = fs::path(path).parent_path();
  return parent.empty() ? "." : parent.string();
}

// A layer that has a name of its own until it is whole. Thread safety: none.
class UnfinishedLayer {
 public:
  explicit UnfinishedLayer(std::string out) : out_(std::move(out)) {}
  ~UnfinishedLayer() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  UnfinishedLayer(const UnfinishedLayer&) = delete;
  UnfinishedLayer& operator=(const UnfinishedLayer&) = delete;
  UnfinishedLayer(UnfinishedLayer&&) = delete;
  UnfinishedLayer& operator=(UnfinishedLayer&&) = delete;

  [[nodiscard]] Result<void> make(Queue& queue, const ConvertToLayer& spec) {
    std::error_code error;
    if (fs::symlink_status(out_, error).type() != fs::file_type::not_found)
      return std::unexpected(Error(k_what, out_, error ? error.message() : "it exists already"));
    std::uint64_t number = 0;
    if (!fill_random(std::as_writable_bytes(std::span(&number, 1))))
      return std::unexpected(Error(k_what, "random numbers", "the kernel has none to give"));
    const std::string path =
        fmt::format("{}/.{}.{:016x}", directory_of(out_), fs::path(out_).filename().string(), number);
    auto created =
        create_layer(queue, {.path = path, .base = spec.base, .cluster_shift = spec.cluster_shift});
    if (!created) {
      const bool ours = created.error().where() == path;
      return std::unexpected(Error(k_what, ours ? out_ : created.error().where(), created.error().why()));
    }
    path_ = path;
    return {};
  }
  // It is closed.
  [[nodiscard]] Result<void> publish() {
    if (::link(path_.c_str(), out_.c_str()) != 0) return failed(errno);
    if (::unlink(path_.c_str()) != 0) return failed(errno);
    path_.clear();
    const UniqueFd directory(::open(directory_of(out_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!directory.valid() || ::fsync(directory.get()) != 0) return failed(errno);
    return {};
  }
  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  [[nodiscard]] std::unexpected<Error> failed(int number) const {
    if (number == EEXIST) return std::unexpected(Error(k_what, out_, "it exists already"));
    return std::unexpected(Error::from_errno(k_what, out_, number));
  }
  std::string out_;
  std::string path_;
};

// Copies blocks into a device. Thread safety: none.
class Copier {
 public:
  Copier(Queue& queue, const OpenedCowfile& from, Device& into, std::uint64_t cluster_bytes,
         const TellProgress& progress)
      : queue_(queue), from_(from), into_(into), cluster_bytes_(cluster_bytes), progress_(progress) {}

  [[nodiscard]] Result<void> copy(Range blocks) {
    Range rest{blocks.offset * k_block_bytes, blocks.length * k_block_bytes};
    while (!rest.empty()) {
      // Pieces end where clusters do.
      const Range piece = rest.prefix(k_piece_bytes - (rest.offset % k_piece_bytes));
      buffer_.resize(piece.length);
      const IoStatus read =
          read_blocking(queue_, *from_.store, from_.head.data_offset + piece.offset, buffer_);
      if (!read.ok())
        return std::unexpected(Error::from_errno(k_what, from_.store->describe(), read.error_number()));
      if (auto put = this->put(piece); !put) return put;
      rest = rest.without_prefix(piece.length);
      done_ += piece.length;
      if (progress_) progress_(done_, from_.head.used_blocks * k_block_bytes);
    }
    return {};
  }

 private:
  // Whether a whole cluster of zeros begins there.
  [[nodiscard]] bool zero_cluster(Range piece, std::uint64_t at) const {
    return at % cluster_bytes_ == 0 && at + cluster_bytes_ <= piece.end() &&
           all_zero(std::span(buffer_).subspan(at - piece.offset, cluster_bytes_));
  }
  [[nodiscard]] std::uint64_t next_cluster(std::uint64_t at, std::uint64_t end) const {
    return std::min(end, (at / cluster_bytes_ + 1) * cluster_bytes_);
  }
  [[nodiscard]] Result<void> put(Range piece) {
    for (std::uint64_t at = piece.offset; at < piece.end();) {
      const bool zero = zero_cluster(piece, at);
      std::uint64_t end = next_cluster(at, piece.end());
      while (end < piece.end() && zero_cluster(piece, end) == zero) end = next_cluster(end, piece.end());
      const std::span<const std::byte> data = std::span(buffer_).subspan(at - piece.offset, end - at);
      const IoStatus status = run_blocking(queue_, [&](Io& io) {
        return zero ? into_.zero(io, {at, end - at}, /*allocate=*/false, Durability::with_flush)
                    : into_.write(io, at, data, Durability::with_flush);
      });
      if (!status.ok())
        return std::unexpected(Error::from_errno(k_what, into_.name(), status.error_number()));
      at = end;
    }
    return {};
  }

  Queue& queue_;
  const OpenedCowfile& from_;
  Device& into_;
  const std::uint64_t cluster_bytes_;
  const TellProgress& progress_;
  std::vector<std::byte> buffer_;
  std::uint64_t done_ = 0;
};

Result<void> fill(Queue& queue, const OpenedCowfile& from, const ConvertToLayer& spec,
                  const std::string& layer, const TellProgress& progress) {
  auto opened = open_device(queue, LayerSpec{layer}, {.name = spec.out});
  if (!opened) return std::unexpected(Error(k_what, spec.out, opened.error().why()));
  Copier copier(queue, from, *opened->device, std::uint64_t{1} << spec.cluster_shift, progress);
  const auto copied =
      for_each_run(queue, k_what, *from.store, from.head, [&](Range run) { return copier.copy(run); });
  const IoStatus closed = opened->device->close(queue);
  if (!copied || closed.ok()) return copied;
  return std::unexpected(Error::from_errno(k_what, spec.out, closed.error_number()));
}

}  // namespace

Result<std::uint64_t> convert_to_layer(Queue& queue, const ConvertToLayer& spec,
                                       const TellProgress& progress) {
  const auto opened = open_sound_cowfile(queue, k_what, spec.cowfile);
  if (!opened) return std::unexpected(opened.error());
  const auto base = open_base(k_what, spec.base, Use::read);
  if (!base) return std::unexpected(base.error());
  if (auto distinct = check_distinct(k_what, *opened->store, **base); !distinct)
    return std::unexpected(distinct.error());
  if (auto checked = check_base(queue, k_what, *opened->store, opened->head, **base); !checked)
    return std::unexpected(checked.error());
  UnfinishedLayer layer(spec.out);
  if (auto made = layer.make(queue, spec); !made) return std::unexpected(made.error());
  if (auto filled = fill(queue, *opened, spec, layer.path(), progress); !filled)
    return std::unexpected(filled.error());
  if (auto published = layer.publish(); !published) return std::unexpected(published.error());
  return opened->head.used_blocks * k_block_bytes;
}

}  // namespace oxbow::cowloop
