// SPDX-License-Identifier: Apache-2.0
// Packing and unpacking of layers in memory, against what was written to them.
#include "jobs/pack_layer.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <random>

#include "device/device.h"
#include "formats/native/codec.h"
#include "jobs/check_layer.h"
#include "jobs/scan_pages.h"
#include "jobs/unpack_layer.h"
#include "stores/blocking.h"
#include "stores/packed/test_packed.h"
#include "stores/ram/ram_store.h"
#include "support/effort.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/layer_file.h"
#include "targets/linear/linear_target.h"
#include "targets/packed/packed_target.h"

namespace oxbow {
namespace {

// A store that fails one operation with EIO and goes on with those after it. Thread safety: one thread at a time.
class FailingStore final : public Store {
 public:
  explicit FailingStore(std::shared_ptr<Store> store) : store_(std::move(store)) {}
  // The n-th from now on, from 0; operations are counted in `count`.
  void fail(std::uint64_t number) noexcept {
    fail_ = number;
    count = 0;
  }
  std::uint64_t count = 0;

  Progress read(Io& io, std::uint64_t at, std::span<std::byte> out, ReadMode mode) noexcept override {
    return broken() ? Progress::failed(EIO) : store_->read(io, at, out, mode);
  }
  Progress write(Io& io, std::uint64_t at, WriteMode mode) noexcept override {
    return broken() ? Progress::failed(EIO) : store_->write(io, at, mode);
  }
  Progress zero(Io& io, Range range, ZeroMode mode) noexcept override {
    return store_->zero(io, range, mode);
  }
  Progress discard(Io& io, Range range) noexcept override { return store_->discard(io, range); }
  Progress sync(Io& io) noexcept override { return broken() ? Progress::failed(EIO) : store_->sync(io); }
  Progress allocate(Io& io, Range range) noexcept override {
    return broken() ? Progress::failed(ENOSPC) : store_->allocate(io, range);
  }
  Progress grow(Io& io, std::uint64_t size) noexcept override {
    return broken() ? Progress::failed(EIO) : store_->grow(io, size);
  }
  std::uint64_t extents(Range range, Extents& out) noexcept override { return store_->extents(range, out); }
  std::span<const std::byte> view(Range /*range*/) noexcept override { return {}; }
  std::span<std::byte> memory(Range /*range*/) noexcept override { return {}; }
  [[nodiscard]] std::uint64_t size() const noexcept override { return store_->size(); }
  [[nodiscard]] bool writable() const noexcept override { return true; }
  [[nodiscard]] std::string describe() const override { return "failing"; }

 private:
  [[nodiscard]] bool broken() noexcept { return count++ == fail_; }
  std::shared_ptr<Store> store_;
  std::uint64_t fail_ = ~std::uint64_t{0};
};

std::shared_ptr<RamStore> ram(std::uint64_t bytes) {
  auto store = RamStore::create({.size_bytes = bytes});
  EXPECT_TRUE(store) << store.error().text();
  return *store;
}

constexpr std::uint64_t k_steps_per_layer = 60;

// A layer that chance has written to, over a base that ends within the device, and what the device reads as.
struct Scene {
  Scene(std::uint64_t seed, std::uint32_t cluster_shift, std::uint64_t size, std::uint64_t steps)
      : random(seed) {
    base_store = ram((size * 2 / 3) + 1);
    bytes.resize(size);
    testing::fill_with_noise(random, std::span(bytes).first(base_store->size()));
    EXPECT_TRUE(write_blocking(queue, *base_store, 0, std::span(bytes).first(base_store->size())).ok());
    LayerDescription description{.size_bytes = size,
                                 .cluster_shift = cluster_shift,
                                 .max_size_bytes = size * 4,
                                 .salt = seed,
                                 .created_ns = 5,
                                 .base_path = "base.img"};
    description.uuid[0] = static_cast<std::uint8_t>(seed);
    description.base.kind = native::BaseKind::raw;
    description.base.size = base_store->size();
    layer = ram(1);
    auto formatted = format_layer(queue, *layer, description);
    EXPECT_TRUE(formatted) << formatted.error().text();
    change(steps);
  }

  [[nodiscard]] std::shared_ptr<Target> base() const {
    return std::make_shared<LinearTarget>(base_store, "base.img", Range{0, base_store->size()}, false);
  }

  void change(std::uint64_t steps) {
    auto target = CowTarget::open(queue, layer, base(), {.writable = true});
    ASSERT_TRUE(target) << target.error().text();
    Device device(*target, {.name = "scene"}, queue);
    const std::uint64_t cluster = std::uint64_t{1} << (*target)->superblock().cluster_shift;
    for (std::uint64_t i = 0; i < steps; ++i) {
      const std::uint64_t at = random() % bytes.size();
      const Range range{at, 1 + (random() % std::min(bytes.size() - at, 6 * cluster))};
      IoStatus status;
      switch (random() % 5) {
        case 0: {
          status = run_blocking(
              queue, [&](Io& io) { return device.zero(io, range, false, Durability::when_completed); });
          std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(at), range.length, std::byte{0});
          break;
        }
        case 1: {
          // Whole clusters alone, so that it is known what is left of them.
          const Range whole{at / cluster * cluster,
                            std::min(cluster, bytes.size() - (at / cluster * cluster))};
          status = run_blocking(
              queue, [&](Io& io) { return device.discard(io, whole, Durability::when_completed); });
          std::fill_n(bytes.begin() + static_cast<std::ptrdiff_t>(whole.offset), whole.length, std::byte{0});
          break;
        }
        default: {
          const bool noise = random() % 2 == 0;
          std::vector<std::byte> data(range.length, static_cast<std::byte>(random() % 3));
          if (noise) testing::fill_with_noise(random, data);
          status = run_blocking(
              queue, [&](Io& io) { return device.write(io, at, data, Durability::when_completed); });
          std::ranges::copy(data, bytes.begin() + static_cast<std::ptrdiff_t>(at));
        }
      }
      ASSERT_TRUE(status.ok()) << status.error_number();
    }
    ASSERT_TRUE(device.close(queue).ok());
  }

  [[nodiscard]] Result<PackReport> pack(Store& from, std::vector<std::byte>& out, int level = 1,
                                        unsigned threads = 2) {
    const auto head = read_layer_head(queue, from);
    if (!head) return std::unexpected(head.error());
    out.clear();
    return write_packed(queue, from, *head, level, threads,
                        [&](std::span<const std::byte> piece) -> Result<void> {
                          out.insert(out.end(), piece.begin(), piece.end());
                          return {};
                        },
                        {});
  }

  [[nodiscard]] std::shared_ptr<PackedStore> open_packed(const std::vector<std::byte>& file) {
    auto store = ram(file.size());
    EXPECT_TRUE(write_blocking(queue, *store, 0, file).ok());
    auto opened = PackedStore::open(queue, store);
    EXPECT_TRUE(opened) << opened.error().text();
    return *opened;
  }

  [[nodiscard]] native::Superblock superblock() { return read_layer_head(queue, *layer)->superblock; }

  // The states of all clusters, as the layer's pages have them.
  [[nodiscard]] std::vector<unsigned> states(Store& of) {
    const auto head = read_layer_head(queue, of);
    EXPECT_TRUE(head) << head.error().text();
    std::vector<unsigned> found(native::cluster_count(head->superblock.size, head->superblock.cluster_shift));
    auto scanned = scan_pages(
        queue, of, head->superblock, [&](std::uint64_t index, const PageSlots& slots) -> Result<void> {
          const PageContent content = choose_page(slots.pages[0], slots.pages[1], index, *head);
          EXPECT_FALSE(content.damaged);
          for (std::uint64_t i = 0; i < native::k_clusters_per_page; ++i) {
            const std::uint64_t cluster = (index * native::k_clusters_per_page) + i;
            if (content.empty || cluster >= found.size()) break;
            found[cluster] = content.page.leaves[i / 256][i % 256 / 32] >> (2 * (i % 32)) & 3U;
          }
          return {};
        });
    EXPECT_TRUE(scanned) << scanned.error().text();
    return found;
  }

  void expect_reads(std::shared_ptr<Target> target) {
    Device device(std::move(target), {.name = "again", .read_only = true}, queue);
    std::vector<std::byte> out(bytes.size());
    ASSERT_TRUE(run_blocking(queue, [&](Io& io) { return device.read(io, 0, out); }).ok());
    for (std::size_t at = 0; at < bytes.size(); at += 4096) {
      const std::size_t length = std::min<std::size_t>(4096, bytes.size() - at);
      ASSERT_EQ(std::memcmp(&out[at], &bytes[at], length), 0) << "between " << at << " and " << at + length;
    }
  }

  std::mt19937_64 random;
  Queue queue;
  std::shared_ptr<RamStore> base_store;
  std::shared_ptr<RamStore> layer;
  std::vector<std::byte> bytes;
};

// Packed and unpacked again, a layer reads as before, and each of its clusters is in the same state.
void round_trip(Scene& scene, int level, unsigned threads) {
  std::vector<std::byte> file;
  const auto report = scene.pack(*scene.layer, file, level, threads);
  ASSERT_TRUE(report) << report.error().text();
  EXPECT_EQ(report->packed_bytes, file.size());
  const auto packed = scene.open_packed(file);
  scene.expect_reads(std::make_shared<PackedTarget>(packed, scene.base()));
  const auto states = scene.states(*scene.layer);
  EXPECT_EQ(packed->index().data_clusters(), std::ranges::count(states, 3U));
  EXPECT_EQ(packed->index().zero_clusters(), std::ranges::count(states, 1U));

  const auto again = ram(1);
  native::Superblock superblock = scene.superblock();
  superblock.salt += 1;
  std::uint64_t told = 0;
  const auto written =
      write_unpacked(scene.queue, *packed, *again, superblock, [&](std::uint64_t done, std::uint64_t total) {
        EXPECT_LE(told, done);
        EXPECT_EQ(total, report->data_bytes);
        told = done;
      });
  ASSERT_TRUE(written) << written.error().text();
  EXPECT_EQ(told, report->data_bytes);
  EXPECT_EQ(scene.states(*again), states);
  const auto checked = check_layer(scene.queue, *again);
  ASSERT_TRUE(checked) << checked.error().text();
  EXPECT_TRUE(checked->findings.empty()) << checked->findings.front().why;
  const auto target = CowTarget::open(scene.queue, again, scene.base(), {.writable = false});
  ASSERT_TRUE(target) << target.error().text();
  scene.expect_reads(*target);
  // It can be written like any other, and packed again.
  const auto original = std::exchange(scene.layer, again);
  scene.change(10);
  scene.layer = original;
}

TEST(PackLayer, ComesBackAsItWas) {
  const std::uint64_t seed = test::seed(1);
  for (std::uint64_t each = seed; each < seed + test::repetitions(2, 40); ++each) {
    for (std::uint32_t shift = native::k_smallest_cluster_shift; shift <= native::k_largest_cluster_shift;
         ++shift) {
      SCOPED_TRACE("seed " + std::to_string(each) + ", cluster shift " + std::to_string(shift));
      std::mt19937_64 random(each + shift);
      const std::uint64_t cluster = std::uint64_t{1} << shift;
      // Sizes at, before and behind the end of a cluster, and anywhere.
      const std::array<std::uint64_t, 4> sizes{9 * cluster, (9 * cluster) - 1, (9 * cluster) + 1,
                                               1 + (random() % (20 * cluster))};
      Scene scene(each, shift, sizes[random() % 4], random() % k_steps_per_layer);
      round_trip(scene, static_cast<int>(random() % 4), 1 + static_cast<unsigned>(random() % 4));
    }
  }
}

TEST(PackLayer, SpansPagesOfStates) {
  Scene scene(test::seed(3), 12, ((native::k_clusters_per_page + 50) * 4096) - 5, 200);
  round_trip(scene, 1, 2);
}

TEST(PackLayer, AnEmptyLayerIsHeaderAndTrailer) {
  Scene scene(1, 12, 1 << 20, 0);
  std::vector<std::byte> file;
  ASSERT_TRUE(scene.pack(*scene.layer, file));
  EXPECT_EQ(file.size(), packed::k_header_bytes + packed::k_trailer_bytes);
  round_trip(scene, 1, 1);
}

// What its last cluster holds beyond the device's end is not told to anybody.
TEST(PackLayer, LeavesOutWhatIsBeyondTheEnd) {
  Scene scene(1, 16, 70'000, 0);
  {
    auto target = CowTarget::open(scene.queue, scene.layer, scene.base(), {.writable = true});
    Device device(*target, {.name = "scene"}, scene.queue);
    const std::vector<std::byte> data(70'000 - 65'536, std::byte{7});
    ASSERT_TRUE(run_blocking(scene.queue, [&](Io& io) {
                  return device.write(io, 65'536, data, Durability::when_completed);
                }).ok());
    ASSERT_TRUE(device.close(scene.queue).ok());
  }
  const std::vector<std::byte> secret(131'072 - 70'000, std::byte{0x42});
  ASSERT_TRUE(
      write_blocking(scene.queue, *scene.layer, scene.superblock().data_offset + 70'000, secret).ok());
  std::vector<std::byte> file;
  ASSERT_TRUE(scene.pack(*scene.layer, file, 0));
  const auto packed = scene.open_packed(file);
  std::vector<std::byte> out(65'536);
  ASSERT_TRUE(read_blocking(scene.queue, *packed, 0, out).ok());
  EXPECT_EQ(out[70'000 - 65'536 - 1], std::byte{7});
  EXPECT_EQ(std::ranges::count(out, std::byte{0x42}), 0);
}

TEST(PackLayer, RefusesWhatItCannotPack) {
  Scene scene(1, 12, 1 << 20, 20);
  std::vector<std::byte> file;
  const auto error_with = [&](const std::function<void(native::Superblock&)>& change) {
    auto head = *read_layer_head(scene.queue, *scene.layer);
    change(head.superblock);
    const auto report =
        write_packed(scene.queue, *scene.layer, head, 1, 1, [](auto) -> Result<void> { return {}; }, {});
    return report ? "" : report.error().why();
  };
  EXPECT_EQ(error_with([](native::Superblock&) {}), "");
  EXPECT_EQ(error_with([](native::Superblock& s) { s.state = native::LayerState::in_use; }),
            "it was not closed cleanly");
  EXPECT_EQ(error_with([](native::Superblock& s) { s.incompatible = native::k_incompatible_merging; }),
            "a merge into its base was begun, and can only be resumed: oxbow merge");
  EXPECT_EQ(error_with([](native::Superblock& s) { s.read_only_compatible = 8; }),
            "it uses features that packed layers don't have (0x8)");
  // A damaged state page.
  const native::Superblock superblock = scene.superblock();
  for (const std::uint64_t slot : superblock.slot_offset) {
    const std::vector<std::byte> garbage(64, std::byte{1});
    ASSERT_TRUE(write_blocking(scene.queue, *scene.layer, slot, garbage).ok());
  }
  EXPECT_EQ(error_with([](native::Superblock&) {}),
            "state page 0 is damaged, so it isn't known what the layer holds: oxbow check");
}

TEST(PackLayer, EveryFailedReadIsAnError) {
  Scene scene(6, 12, 1 << 20, 40);
  const auto failing = std::make_shared<FailingStore>(scene.layer);
  std::vector<std::byte> file;
  ASSERT_TRUE(scene.pack(*failing, file));
  const std::uint64_t operations = failing->count;
  EXPECT_GT(operations, 10U);
  for (std::uint64_t i = 0; i < operations; ++i) {
    failing->fail(i);
    const auto report = scene.pack(*failing, file);
    ASSERT_FALSE(report) << "operation " << i;
    EXPECT_NE(report.error().text().find("failing: Input/output error"), std::string::npos)
        << report.error().text();
  }
}

TEST(PackLayer, EveryFailedAppendIsAnError) {
  Scene scene(6, 12, 1 << 20, 40);
  const auto head = read_layer_head(scene.queue, *scene.layer);
  std::uint64_t count = 0;
  std::uint64_t fail = ~std::uint64_t{0};
  const auto append = [&](std::span<const std::byte>) -> Result<void> {
    if (count++ == fail) return std::unexpected(Error("cannot write", "there", "no"));
    return {};
  };
  ASSERT_TRUE(write_packed(scene.queue, *scene.layer, *head, 1, 2, append, {}));
  const std::uint64_t pieces = std::exchange(count, 0);
  EXPECT_GT(pieces, 5U);
  for (fail = 0; fail < pieces; ++fail, count = 0) {
    const auto report = write_packed(scene.queue, *scene.layer, *head, 1, 2, append, {});
    ASSERT_FALSE(report) << fail;
    EXPECT_EQ(report.error().text(), "cannot write: there: no");
  }
}

TEST(UnpackLayer, EveryFailedOperationIsAnError) {
  Scene scene(6, 12, 1 << 20, 40);
  std::vector<std::byte> file;
  ASSERT_TRUE(scene.pack(*scene.layer, file));
  const auto packed = scene.open_packed(file);
  const native::Superblock superblock = scene.superblock();
  const auto unpack = [&](std::uint64_t fail, std::uint64_t& count) {
    FailingStore failing(ram(1));
    failing.fail(fail);
    auto written = write_unpacked(scene.queue, *packed, failing, superblock, {});
    count = failing.count;
    return written;
  };
  std::uint64_t operations = 0;
  ASSERT_TRUE(unpack(~std::uint64_t{0}, operations));
  EXPECT_GT(operations, 10U);
  for (std::uint64_t i = 0, count = 0; i < operations; ++i) {
    const auto written = unpack(i, count);
    ASSERT_FALSE(written) << "operation " << i;
    EXPECT_EQ(count, i + 1) << "nothing is done after what failed";
    EXPECT_EQ(written.error().where(), "failing");
  }
}

TEST(UnpackLayer, NamesTheFrameThatIsDamaged) {
  Scene scene(6, 12, 1 << 20, 40);
  std::vector<std::byte> file;
  ASSERT_TRUE(scene.pack(*scene.layer, file));
  file[packed::k_header_bytes + 20] ^= std::byte{4};
  const auto packed = scene.open_packed(file);
  const auto written = write_unpacked(scene.queue, *packed, *ram(1), scene.superblock(), {});
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().what(), "cannot unpack layer");
  EXPECT_NE(written.error().why().find("frame 0 at byte 4096 is damaged: its checksum is wrong"),
            std::string::npos);
}

}  // namespace
}  // namespace oxbow
