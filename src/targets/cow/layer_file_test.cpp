// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/layer_file.h"

#include <gtest/gtest.h>

namespace oxbow {
namespace {

using native::BaseKind;
using native::BaseRecord;

LayerDescription example(std::uint64_t size) {
  LayerDescription description{.size_bytes = size, .base_path = "base.img"};
  description.base.kind = BaseKind::raw;
  description.base.size = 1 << 20;
  return description;
}

TEST(DescribeLayer, LeavesRoomToGrow) {
  constexpr std::uint64_t k_tebibyte = std::uint64_t{1} << 40;
  EXPECT_EQ(describe_layer(example(1 << 20))->max_size, 16 * k_tebibyte);
  EXPECT_EQ(describe_layer(example(2 * k_tebibyte))->max_size, 32 * k_tebibyte);
  LayerDescription largest = example(native::k_largest_size_bytes);
  largest.cluster_shift = native::k_largest_cluster_shift;
  EXPECT_EQ(describe_layer(largest)->max_size, native::k_largest_size_bytes);
  EXPECT_EQ(describe_layer(example(std::uint64_t{100} << 50))->max_size,
            (std::uint64_t{1} << 31) * native::k_clusters_per_page * 4096);
  EXPECT_EQ(describe_layer(example(3 << 20))->base_visible, 1U << 20);
}

TEST(DescribeLayer, RefusesWhatCannotBe) {
  const auto why = [](const LayerDescription& description) {
    const auto described = describe_layer(description);
    return described ? "accepted" : described.error().text();
  };
  EXPECT_EQ(why(example(0)), "cannot create layer: base.img: the device would have no bytes");
  EXPECT_EQ(why(example(native::k_largest_size_bytes + 1)),
            "cannot create layer: base.img: 1152921504606846977 bytes are more than the format's "
            "1152921504606846976");
  EXPECT_EQ(why(example(native::k_largest_size_bytes)),
            "cannot create layer: base.img: it would have 17452565521 state pages, flush records can name "
            "2147483648");
  EXPECT_EQ(why(example(4096)),
            "cannot create layer: base.img: a size of 4096 bytes is below the base's 1048576");
  LayerDescription long_path = example(1 << 20);
  long_path.base_path = std::string(4000, 'x');
  EXPECT_TRUE(why(long_path).ends_with(": the base's path is longer than 3072 bytes"));
  LayerDescription odd_cluster = example(1 << 20);
  odd_cluster.cluster_shift = 9;
  EXPECT_EQ(why(odd_cluster), "cannot create layer: base.img: cluster_shift is 9, not 12 to 20");
}

TEST(BaseDifference, NamesBothSides) {
  BaseRecord raw{};
  raw.kind = BaseKind::raw;
  raw.size = 1000;
  raw.mtime_ns = 1'700'000'000'000'000'001;
  EXPECT_EQ(base_difference(raw, raw, false), "");
  BaseRecord other = raw;
  other.size = 999;
  EXPECT_EQ(base_difference(raw, other, true),
            "the layer was made over a base of 1000 bytes, this one has 999");
  other = raw;
  other.samples[3] = 1;
  EXPECT_EQ(base_difference(raw, other, true),
            "the base's content is not what the layer was made over: samples of both differ");
  other = raw;
  other.mtime_ns += 1'000'000'000;
  EXPECT_EQ(base_difference(raw, other, false),
            "the base was modified at 2023-11-14 22:13:21.000000001 UTC, but at 2023-11-14 "
            "22:13:20.000000001 UTC when "
            "the layer was made; samples of its content are equal, so if you are sure that it is unchanged: "
            "--accept-base");
  EXPECT_EQ(base_difference(raw, other, true), "");
  other = raw;
  other.inode = 7;
  EXPECT_EQ(base_difference(raw, other, false), "") << "a copy that kept its time is the same base";
  BaseRecord layer{};
  layer.kind = BaseKind::layer;
  layer.epoch = 4;
  other = layer;
  other.epoch = 6;
  EXPECT_EQ(base_difference(layer, other, true),
            "the base was written after the layer was made over it: epoch 4 then, 6 now");
  other = layer;
  other.uuid[0] = 0xab;
  EXPECT_EQ(base_difference(layer, other, true),
            "the layer was made over layer 00000000-0000-0000-0000-000000000000, this one is "
            "ab000000-0000-0000-0000-000000000000");
}

}  // namespace
}  // namespace oxbow
