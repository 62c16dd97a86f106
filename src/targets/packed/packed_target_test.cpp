// SPDX-License-Identifier: Apache-2.0
#include "targets/packed/packed_target.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "stores/packed/test_packed.h"
#include "support/effort.h"
#include "targets/fake_store.h"
#include "targets/linear/linear_target.h"

namespace oxbow {
namespace {

using testing::make_packed_sample;
using testing::PackedSample;

// A packed layer over a base that ends in the middle of the device.
struct Scene {
  explicit Scene(std::uint64_t seed) : sample(make_packed_sample(seed, {})) {
    sample.header.base.kind = native::BaseKind::raw;
    sample.header.base.size = sample.header.base_visible = sample.header.size / 2;
    sample.header.base_path_length = 1;
    sample.header.base_path[0] = 'b';
    sample.file.clear();
    testing::pack_sample(sample, 1);
    auto opened = PackedStore::open(queue, testing::store_of(queue, sample.file));
    EXPECT_TRUE(opened) << opened.error().text();
    store = *opened;
    base_store = std::make_shared<FakeStore>(sample.header.base.size);
    base = std::make_shared<LinearTarget>(base_store, "b", Range{0, base_store->size()}, false);
    target = std::make_shared<PackedTarget>(store, base);
  }

  // What byte `at` has to be made of.
  [[nodiscard]] Extent expected(std::uint64_t at) const {
    const std::uint64_t cluster = at >> sample.header.cluster_shift;
    std::uint64_t data_first = 0;
    for (const packed::RunRecord& run : sample.runs) {
      if (cluster >= run.first && cluster < run.first + run.count) {
        const std::uint64_t place =
            ((data_first + cluster - run.first) << sample.header.cluster_shift) + (at % 4096);
        if (run.kind == packed::RunKind::zero) return {1, Kind::zero, 0, nullptr, 0};
        return {1, Kind::data, 0, store.get(), place};
      }
      if (run.kind == packed::RunKind::data) data_first += run.count;
    }
    if (at < sample.header.base_visible) return {1, Kind::data, 1, base_store.get(), at};
    return {1, Kind::zero, 1, nullptr, 0, true};
  }

  Queue queue;
  PackedSample sample;
  std::shared_ptr<PackedStore> store;
  std::shared_ptr<FakeStore> base_store;
  std::shared_ptr<Target> base;
  std::shared_ptr<PackedTarget> target;
};

void expect_same(const Extent& extent, std::uint64_t within, const Extent& expected, std::uint64_t at) {
  ASSERT_EQ(extent.kind, expected.kind) << at;
  ASSERT_EQ(extent.layer, expected.layer) << at;
  ASSERT_EQ(extent.nowhere, expected.nowhere) << at;
  if (expected.kind != Kind::data) return;
  ASSERT_EQ(extent.store, expected.store) << at;
  ASSERT_EQ(extent.at + within, expected.at) << at;
}

TEST(PackedTarget, LocatesEveryByte) {
  const std::uint64_t seed = test::seed(21);
  for (std::uint64_t each = seed; each < seed + 3; ++each) {
    const Scene scene(each);
    std::mt19937_64 random(each);
    for (std::uint64_t i = 0; i < test::repetitions(300, 5000); ++i) {
      const std::uint64_t at = random() % scene.target->size();
      const Range range{at, 1 + (random() % std::min<std::uint64_t>(scene.target->size() - at, 1 << 20))};
      Extents extents;
      const Step step = scene.target->locate(range, extents);
      ASSERT_EQ(step.answer, Answer::ready);
      ASSERT_GT(step.length, 0U);
      ASSERT_LE(step.length, range.length);
      ASSERT_TRUE(step.length == range.length || extents.full())
          << "a prefix only where there is no more room";
      std::uint64_t covered = 0;
      for (const Extent& extent : extents) {
        for (const std::uint64_t within : {std::uint64_t{0}, extent.length / 2, extent.length - 1})
          expect_same(extent, within, scene.expected(at + covered + within), at + covered + within);
        covered += extent.length;
      }
      ASSERT_EQ(covered, step.length);
    }
  }
}

TEST(PackedTarget, GoesOnBehindWhatIsThereAlready) {
  const Scene scene(4);
  Extents extents;
  for (std::size_t i = 0; i + 1 < k_extents_per_answer; ++i)
    extents.push_back({1, Kind::error, 0, nullptr, EIO});
  const Step step = scene.target->locate({0, scene.target->size()}, extents);
  EXPECT_EQ(extents.size(), k_extents_per_answer);
  EXPECT_EQ(extents[k_extents_per_answer - 1].length, step.length);
  EXPECT_EQ(extents[0].kind, Kind::error);
}

TEST(PackedTarget, CannotBeChanged) {
  const Scene scene(4);
  EXPECT_FALSE(scene.target->writable());
  for (const Operation operation : {Operation::write, Operation::zero, Operation::discard}) {
    Plan plan;
    const Step step = scene.target->plan({0, 4096}, {operation, false, false}, plan);
    EXPECT_EQ(step.answer, Answer::failed);
    EXPECT_EQ(step.key, static_cast<std::uint64_t>(EPERM));
    EXPECT_EQ(plan.owner, nullptr);
  }
}

TEST(PackedTarget, TellsWhatItIs) {
  const Scene scene(4);
  const TargetStatus status = scene.target->status();
  EXPECT_EQ(status.name, "packed");
  const std::uint64_t sectors = (scene.sample.file.size() + 511) / 512;
  EXPECT_EQ(status.info, std::to_string(sectors) + "/6145 8");
  std::vector<ChainPart> chain;
  scene.target->describe(chain);
  ASSERT_EQ(chain.size(), 2U);
  EXPECT_EQ(chain[0].format, "packed");
  EXPECT_EQ(chain[0].size_bytes, scene.sample.header.size);
  EXPECT_EQ(chain[0].cluster_bytes, 4096U);
  EXPECT_EQ(chain[1].format, "raw");
}

}  // namespace
}  // namespace oxbow
