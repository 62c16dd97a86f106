// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "check/scene.h"
#include "jobs/check_data.h"
#include "support/effort.h"

namespace oxbow::check {
namespace {

// The medium refuses some blocks: these, as bytes of the device, and nothing else.
TEST(CheckData, NamesWhatTheMediumRefuses) {
  Scene scene(test::seed(3));
  const auto store = scene.store(scene.clean());
  const std::uint64_t data = scene.superblock.data_offset;
  const std::vector<std::uint64_t> bad{8192, k_page_span, 2 * k_page_span};
  store->fault = [&](const sim::SimStore::Call& call) {
    const auto hit = [&](std::uint64_t at) {
      return call.range.offset < data + at + 512 && call.range.end() > data + at;
    };
    return call.kind == sim::StoreCall::read && std::ranges::any_of(bad, hit) ? EIO : 0;
  };
  std::vector<Finding> findings;
  std::uint64_t done = 0;
  std::uint64_t total = 0;
  ASSERT_TRUE(read_layer_data(
      scene.queue, *store,
      [&](std::uint64_t now, std::uint64_t all) {
        done = now;
        total = all;
      },
      findings));
  EXPECT_EQ(done, 5U * 4096);
  EXPECT_EQ(total, done);
  ASSERT_EQ(findings.size(), bad.size());
  for (std::size_t i = 0; i < bad.size(); ++i) {
    EXPECT_EQ(findings[i].where, "data");
    EXPECT_EQ(findings[i].why, "it cannot be read: Input/output error");
    EXPECT_EQ(findings[i].lost, (std::vector<Range>{{bad[i], 4096}}));
    EXPECT_EQ(findings[i].stored, (Range{data + bad[i], 4096}));
  }
}

TEST(CheckData, HasNothingToSayOfASoundLayer) {
  Scene scene(test::seed(3));
  std::vector<Finding> findings;
  ASSERT_TRUE(read_layer_data(scene.queue, *scene.store(scene.clean()), {}, findings));
  EXPECT_TRUE(findings.empty());
}

}  // namespace
}  // namespace oxbow::check
