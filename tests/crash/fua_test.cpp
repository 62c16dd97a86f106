// SPDX-License-Identifier: Apache-2.0
// A change with FUA is durable when it is answered: whatever it does, and whatever its clusters were before.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <tuple>

#include "crash/world.h"

namespace oxbow::crash {
namespace {

using Bytes = std::vector<std::byte>;

enum class Doing : std::uint8_t { write, zero, zero_without_hole, trim };
enum class Before : std::uint8_t {
  absent,       // the layer knows nothing of the cluster
  unpublished,  // written and not flushed
  durable,      // written and flushed
  each,         // one of these after the other
};

constexpr std::uint64_t k_clusters = 12;

std::string name_of(const testing::TestParamInfo<std::tuple<Doing, Before, unsigned, bool>>& info) {
  static constexpr std::array k_doing{"Write", "Zeroes", "ZeroesWithoutHole", "Trim"};
  static constexpr std::array k_before{"Absent", "Unpublished", "Durable", "Each"};
  const auto [doing, before, shift, over_base] = info.param;
  return std::string(k_doing.at(static_cast<std::size_t>(doing))) +
         k_before.at(static_cast<std::size_t>(before)) + (shift == 12 ? "4K" : "64K") +
         (over_base ? "OverBase" : "");
}

class Fua : public testing::TestWithParam<std::tuple<Doing, Before, unsigned, bool>> {
 protected:
  void SetUp() override { std::tie(doing_, before_, shift_, over_base_) = GetParam(); }

  [[nodiscard]] std::uint64_t cluster() const { return std::uint64_t{1} << shift_; }
  // Two sectors and some bytes over a whole number of clusters.
  [[nodiscard]] std::uint64_t size() const { return k_clusters * cluster() + 1100; }

  // A world whose clusters are as the case has them.
  std::unique_ptr<World> make(std::uint64_t seed) {
    auto world = std::make_unique<World>(seed, 30);
    if (over_base_) {
      world->base_disk = std::make_shared<sim::SimDisk>(world->pool, size());
      fill_base(*world);
    }
    LayerDescription description;
    description.size_bytes = size();
    description.cluster_shift = shift_;
    world->open_layer(std::move(description));
    if (testing::Test::HasFatalFailure()) return nullptr;
    put(*world, Before::durable, 'd');
    EXPECT_TRUE(world->flush_now().ok());
    put(*world, Before::unpublished, 'u');
    return world;
  }
  void fill_base(World& world) const {
    auto store = std::make_shared<sim::SimStore>(world.queue, world.base_disk, world.options);
    Device base(std::make_shared<SimTarget>(store, true), Device::Options{}, world.queue);
    const Bytes data(size(), std::byte{'b'});
    EXPECT_TRUE(run_blocking(world.queue, [&](Io& io) {
                  return base.write(io, 0, data, Durability::with_flush);
                }).ok());
    EXPECT_TRUE(base.close(world.queue).ok());
  }
  void put(World& world, Before what, char letter) const {
    for (std::uint64_t at = 0; at < size(); at += cluster()) {
      const bool here = before_ == what ||
                        (before_ == Before::each && at / cluster() % 3 == static_cast<std::uint64_t>(what));
      if (!here) continue;
      EXPECT_TRUE(world.write_now(at, letters(letter, std::min(cluster(), size() - at))).ok());
    }
  }

  [[nodiscard]] static Bytes read(World& world, Range range) {
    Bytes bytes(range.length);
    EXPECT_TRUE(
        run_blocking(world.queue, [&](Io& io) { return world.device->read(io, range.offset, bytes); }).ok());
    return bytes;
  }

  [[nodiscard]] IoStatus carry_out(World& world, Range range, const Bytes& data) const {
    return run_blocking(world.queue, [&](Io& io) {
      constexpr auto k_fua = Durability::when_completed;
      if (doing_ == Doing::write) return world.device->write(io, range.offset, data, k_fua);
      if (doing_ == Doing::trim) return world.device->discard(io, range, k_fua);
      return world.device->zero(io, range, doing_ == Doing::zero_without_hole, k_fua);
    });
  }

  // What of a range is changed: of a trim the whole clusters; the device's last one may be short.
  [[nodiscard]] Range changed(Range range) const {
    if (doing_ != Doing::trim) return range;
    const std::uint64_t first = (range.offset + cluster() - 1) / cluster() * cluster();
    const std::uint64_t end = range.end() == size() ? size() : range.end() / cluster() * cluster();
    return {first, first < end ? end - first : 0};
  }

  void judge(std::uint64_t seed, Range range) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ": " + std::to_string(range.offset) + "+" +
                 std::to_string(range.length));
    const auto world = make(seed);
    ASSERT_NE(world, nullptr);
    const Bytes before = read(*world, {0, size()});
    ASSERT_TRUE(carry_out(*world, range, letters('w', range.length)).ok());
    check(changed(range), before, read(*world, {0, size()}), before);
    if (seed % 2 == 0) {
      Worst worst;
      world->power_loss(worst);
    } else {
      sim::RandomLoss loss(world->random, *world->disk);
      world->power_loss(loss);
    }
    if (HasFailure()) return;
    Bytes lost = before;  // what was not flushed may be as it was before it was written
    std::ranges::replace(lost, std::byte{'u'}, over_base_ ? std::byte{'b'} : std::byte{0});
    check(changed(range), before, read(*world, {0, size()}), lost);
  }
  // Within `range` the change is there; beside it is what was there before, or was there before that.
  void check(Range range, const Bytes& before, const Bytes& now, const Bytes& or_else) const {
    const std::byte left = doing_ == Doing::write ? std::byte{'w'} : std::byte{0};
    for (std::uint64_t at = 0; at < size(); ++at) {
      const bool inside = at >= range.offset && at < range.end();
      const bool fine = inside ? now[at] == left : now[at] == before[at] || now[at] == or_else[at];
      ASSERT_TRUE(fine) << "byte " << at << (inside ? " of the change" : " beside it");
    }
  }

  Doing doing_{};
  Before before_{};
  unsigned shift_ = 12;
  bool over_base_ = false;
};

TEST_P(Fua, IsDurableWhenItIsAnswered) {
  const std::vector<Range> ranges{
      {0, cluster()},                                        // one cluster
      {2 * cluster(), 3 * cluster()},                        // several, one of each kind
      {cluster() + 512, 1024},                               // sectors within one
      {3 * cluster() - 700, 1500},                           // odd bytes where two meet
      {5 * cluster() - 1, 3 * cluster() + 2},                // whole ones between single bytes
      {k_clusters * cluster(), 1100},                        // the short one at the end
      {(k_clusters - 1) * cluster() + 3, cluster() + 1097},  // up to the last byte
      {0, size()},
  };
  std::uint64_t seed = 0;
  for (const Range& range : ranges) {
    for (int round = 0; round < 2; ++round) {
      judge(++seed, range);
      if (HasFailure()) return;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    On, Fua,
    testing::Combine(testing::Values(Doing::write, Doing::zero, Doing::zero_without_hole, Doing::trim),
                     testing::Values(Before::absent, Before::unpublished, Before::durable, Before::each),
                     testing::Values(12U, 16U), testing::Bool()),
    name_of);

}  // namespace
}  // namespace oxbow::crash
