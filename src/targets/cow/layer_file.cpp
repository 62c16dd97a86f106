// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/layer_file.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <vector>

#include "formats/native/codec.h"
#include "targets/cow/layer_head.h"

namespace oxbow {
namespace {

using native::BaseKind;
using native::BaseRecord;

constexpr std::uint64_t k_least_max_size_bytes = std::uint64_t{16} << 40;
constexpr std::uint64_t k_growth_factor = 16;

// Room to grow, as far as the format goes.
std::uint64_t usual_max_size(std::uint64_t size, std::uint32_t cluster_shift) noexcept {
  const std::uint64_t nameable = (std::uint64_t{native::k_record_slot_bit} * native::k_clusters_per_page)
                                 << std::min(cluster_shift, native::k_largest_cluster_shift);
  const std::uint64_t largest = std::min(native::k_largest_size_bytes, nameable);
  const std::uint64_t wanted = size > largest / k_growth_factor ? largest : size * k_growth_factor;
  return std::max({k_least_max_size_bytes, size, wanted});
}

std::string time_text(std::int64_t ns) {
  constexpr std::int64_t k_ns_per_s = 1'000'000'000;
  return fmt::format("{:%Y-%m-%d %H:%M:%S}.{:09} UTC", fmt::gmtime(static_cast<std::time_t>(ns / k_ns_per_s)),
                     ns % k_ns_per_s);
}

}  // namespace

Result<native::Superblock> describe_layer(const LayerDescription& d) {
  const auto refuse = [&](std::string why) {
    return std::unexpected(Error("cannot create layer", d.base_path, std::move(why)));
  };
  if (d.size_bytes == 0) return refuse("the device would have no bytes");
  if (d.size_bytes > native::k_largest_size_bytes) {
    return refuse(
        fmt::format("{} bytes are more than the format's {}", d.size_bytes, native::k_largest_size_bytes));
  }
  if (d.size_bytes < d.base.size) {
    return refuse(fmt::format("a size of {} bytes is below the base's {}", d.size_bytes, d.base.size));
  }
  if (d.base_path.size() > native::k_base_path_bytes) {
    return refuse(fmt::format("the base's path is longer than {} bytes", native::k_base_path_bytes));
  }
  native::Superblock s{};
  s.magic = native::k_magic;
  s.version = native::k_version;
  s.sequence = 1;
  s.uuid = d.uuid;
  s.salt = d.salt;
  s.created_ns = d.created_ns;
  s.size = d.size_bytes;
  s.base_visible = std::min(d.base.size, d.size_bytes);
  s.max_size = d.max_size_bytes != 0 ? d.max_size_bytes : usual_max_size(d.size_bytes, d.cluster_shift);
  s.cluster_shift = d.cluster_shift;
  native::lay_out(s);
  s.epoch = 1;
  s.absent_before = 1;
  s.state = native::LayerState::clean;
  s.base = d.base;
  s.base_path_length = static_cast<std::uint32_t>(d.base_path.size());
  std::ranges::copy(d.base_path, s.base_path.begin());
  if (auto why = native::contradiction(s)) return refuse(std::move(*why));
  return s;
}

Result<void> format_layer(Queue& queue, Store& layer, const LayerDescription& description) {
  auto superblock = describe_layer(description);
  if (!superblock) return std::unexpected(superblock.error());
  const auto failed = [&](IoStatus status) {
    return std::unexpected(Error::from_errno("cannot create layer", layer.describe(), status.error_number()));
  };
  const std::uint64_t length = native::file_bytes(*superblock);
  if (const IoStatus grown = run_blocking(queue, [&](Io& io) { return layer.grow(io, length); });
      !grown.ok()) {
    return failed(grown);
  }
  const IoStatus written = write_superblocks(queue, layer, *superblock, 0);
  if (!written.ok()) return failed(written);
  return {};
}

Result<native::Hash128> sample_base(Queue& queue, Store& base, const native::Uuid& uuid) {
  struct Free {
    void operator()(XXH3_state_t* state) const noexcept { XXH3_freeState(state); }
  };
  const std::unique_ptr<XXH3_state_t, Free> state(XXH3_createState());
  std::vector<std::byte> buffer;
  const auto failed = [&](int number) {
    return std::unexpected(Error::from_errno("cannot read base", base.describe(), number));
  };
  if (state == nullptr || XXH3_128bits_reset(state.get()) != XXH_OK) return failed(ENOMEM);
  for (const Range& range : native::sample_ranges(base.size(), uuid)) {
    buffer.resize(range.length);
    const IoStatus read =
        run_blocking(queue, [&](Io& io) { return base.read(io, range.offset, buffer, ReadMode::may_wait); });
    if (!read.ok()) return failed(read.error_number());
    if (XXH3_128bits_update(state.get(), buffer.data(), buffer.size()) != XXH_OK) return failed(EIO);
  }
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state.get()));
  native::Hash128 hash;
  static_assert(sizeof(canonical) == sizeof(hash));
  std::memcpy(hash.data(), &canonical, sizeof(hash));
  return hash;
}

BaseRecord base_record(const FileIdentity& identity) noexcept {
  BaseRecord record{};
  record.kind = BaseKind::raw;
  record.size = identity.size_bytes;
  record.device = identity.dev;
  record.inode = identity.inode;
  record.mtime_ns = identity.mtime_ns;
  return record;
}

BaseRecord base_record(const native::Superblock& superblock) noexcept {
  BaseRecord record{};
  record.kind = BaseKind::layer;
  record.size = superblock.size;
  record.uuid = superblock.uuid;
  record.epoch = superblock.epoch;
  return record;
}

std::string base_difference(const BaseRecord& recorded, const BaseRecord& found, bool accept_changed_time) {
  if (found.size != recorded.size) {
    return fmt::format("the layer was made over a base of {} bytes, this one has {}", recorded.size,
                       found.size);
  }
  if (recorded.kind == BaseKind::layer) {
    if (found.uuid != recorded.uuid) {
      return fmt::format("the layer was made over layer {}, this one is {}", native::to_text(recorded.uuid),
                         native::to_text(found.uuid));
    }
    if (found.epoch != recorded.epoch) {
      return fmt::format("the base was written after the layer was made over it: epoch {} then, {} now",
                         recorded.epoch, found.epoch);
    }
    return {};
  }
  if (found.samples != recorded.samples) {
    return "the base's content is not what the layer was made over: samples of both differ";
  }
  const bool times_count = recorded.mtime_ns != 0 && found.mtime_ns != 0 && !accept_changed_time;
  if (times_count && found.mtime_ns != recorded.mtime_ns) {
    return fmt::format(
        "the base was modified at {}, but at {} when the layer was made; samples of its content are "
        "equal, so if you are sure that it is unchanged: --accept-base",
        time_text(found.mtime_ns), time_text(recorded.mtime_ns));
  }
  return {};
}

}  // namespace oxbow
