// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/state_map.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <vector>

namespace oxbow {
namespace {

void publish(StateMap& map, std::uint64_t first, std::uint64_t count, ClusterState state) {
  ASSERT_TRUE(map.make_room(first, count).ok());
  map.publish(first, count, state);
}

TEST(StateMap, StartsAbsentWithoutLeaves) {
  const StateMap map(std::uint64_t{1} << 28);
  const StateMap::Run run = map.run(12'345, std::uint64_t{1} << 20);
  EXPECT_EQ(run.state, ClusterState::absent);
  EXPECT_EQ(run.count, std::uint64_t{1} << 20);
  EXPECT_EQ(map.leaves(), 0U);
}

TEST(StateMap, AgreesWithAPlainArray) {
  constexpr std::uint64_t k_clusters = 40'000;
  constexpr unsigned k_seed = 20'240'101;
  SCOPED_TRACE(k_seed);
  std::mt19937_64 random(k_seed);
  StateMap map(k_clusters);
  std::vector<ClusterState> model(k_clusters, ClusterState::absent);
  for (int step = 0; step < 2000; ++step) {
    const std::uint64_t first = random() % k_clusters;
    const std::uint64_t count =
        std::min<std::uint64_t>(1 + (random() % (random() % 8 == 0 ? 3000 : 40)), k_clusters - first);
    const ClusterState state = random() % 2 == 0 ? ClusterState::data : ClusterState::zero;
    ASSERT_TRUE(map.make_room(first, count).ok());
    map.publish(first, count, state);
    std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(first), count, state);
    const std::uint64_t from = random() % k_clusters;
    const StateMap::Run run = map.run(from, k_clusters - from);
    std::uint64_t expected = 0;
    while (from + expected < k_clusters && model[from + expected] == model[from]) ++expected;
    ASSERT_EQ(run.state, model[from]) << "step " << step << ", cluster " << from;
    ASSERT_EQ(run.count, expected) << "step " << step << ", cluster " << from;
  }
}

TEST(StateMap, ComposesWhatItInstalls) {
  constexpr std::uint64_t k_clusters = native::k_clusters_per_page * 2 + 100;
  StateMap from(k_clusters);
  publish(from, native::k_clusters_per_page - 3, 10, ClusterState::data);
  publish(from, k_clusters - 5, 5, ClusterState::zero);
  StateMap to(k_clusters);
  for (std::uint64_t page = 0; page < 3; ++page) {
    auto bytes = std::make_unique<native::StatePage>();
    from.compose(page, *bytes);
    ASSERT_TRUE(to.install(page, *bytes).ok());
  }
  for (std::uint64_t cluster = 0; cluster < k_clusters; ++cluster) {
    ASSERT_EQ(to.state(cluster), from.state(cluster)) << cluster;
  }
  EXPECT_EQ(to.leaves(), from.leaves());
}

}  // namespace
}  // namespace oxbow
