// SPDX-License-Identifier: Apache-2.0
// Cowfiles that become layers and layers that become cowfiles: what they read as, and what comes back.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>

#include "formats/cowloop/testing/cowfile_bytes.h"
#include "jobs/check_layer.h"
#include "jobs/cowloop/check_cowfile.h"
#include "jobs/cowloop/convert_cowfile.h"
#include "jobs/create_layer.h"
#include "jobs/map_device.h"
#include "jobs/open_device.h"
#include "stores/testing/store_model.h"
#include "support/effort.h"

namespace oxbow::cowloop {
namespace {

using oxbow::testing::TestFolder;
using testing::base_of;
using testing::block_of;
using testing::Bytes;
using testing::CowfileBytes;
using testing::fingerprint_bytes;

// Thread safety: none.
class CowfileConvert : public ::testing::Test {
 protected:
  std::string put(const std::string& name, const Bytes& bytes) {
    const std::string path = folder_.path(name);
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return path;
  }
  static Bytes get(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    Bytes bytes(std::filesystem::file_size(path));
    file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    return bytes;
  }
  // What the layer reads as, and what it says of itself.
  Bytes read_layer(const std::string& path, std::vector<std::pair<Range, Kind>>* own = nullptr) {
    const auto opened = open_device(queue_, LayerSpec{path}, {.name = path, .writable = false});
    EXPECT_TRUE(opened) << opened.error().text();
    Bytes bytes(opened->device->size());
    EXPECT_TRUE(run_blocking(queue_, [&](Io& io) { return opened->device->read(io, 0, bytes); }).ok());
    if (own != nullptr) {
      EXPECT_TRUE(map_device(queue_, *opened->device, [&](const MappedExtent& extent) -> Result<void> {
        if (extent.layer == 0) own->emplace_back(extent.range, extent.kind);
        return {};
      }));
    }
    EXPECT_TRUE(opened->device->close(queue_).ok());
    return bytes;
  }
  // A layer over `base` that chance has written to.
  std::string random_layer(const std::string& base, std::mt19937_64& random, std::uint32_t shift) {
    const std::string path = folder_.path("random.oxb");
    std::filesystem::remove(path);
    EXPECT_TRUE(create_layer(queue_, {.path = path, .base = base, .cluster_shift = shift}));
    const auto opened = open_device(queue_, LayerSpec{path}, {.name = path});
    Device& device = *opened->device;
    const std::uint64_t end = device.size() / 1024 * 1024;
    for (unsigned i = 0; i < 25; ++i) {
      Range range{random() % (end / 512) * 512, 0};
      range.length = std::min(end - range.offset, (1 + (random() % 40)) * 512);
      const Bytes bytes(range.length, static_cast<std::byte>(random() % 3 == 0 ? 0 : 0x80 + i));
      const IoStatus done = run_blocking(queue_, [&](Io& io) {
        return random() % 4 == 0 ? device.zero(io, range, false, Durability::with_flush)
                                 : device.write(io, range.offset, bytes, Durability::with_flush);
      });
      EXPECT_TRUE(done.ok());
    }
    EXPECT_TRUE(device.close(queue_).ok());
    return path;
  }
  std::string out(const std::string& name) {
    std::filesystem::remove(folder_.path(name));
    return folder_.path(name);
  }
  std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(std::filesystem::directory_iterator(folder_.path(".")), {}));
  }

  TestFolder folder_;
  Queue queue_;
};

Bytes content(const CowfileBytes& file, Bytes base) {
  for (const auto& [block, data] : file.data)
    std::ranges::copy(data, base.begin() + static_cast<long>(block * 1024));
  return base;
}

TEST_F(CowfileConvert, CowfilesComeBackByteForByte) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + test::repetitions(12, 200); ++seed) {
    std::mt19937_64 random(seed);
    const Bytes base = base_of((1 + (random() % 400)) * 1024 + (random() % 3 == 0 ? random() % 1024 : 0));
    const std::string rdo = put("rdo", base);
    CowfileBytes file{
        .wide = random() % 2 == 0, .blocks = base.size() / 1024, .fingerprint = fingerprint_bytes(base)};
    // Zeros, and bytes that the base has not.
    for (std::uint64_t i = random() % 300; i > 0; --i)
      file.data[random() % file.blocks] = block_of(random() % 3 == 0 ? 0 : 255);
    const std::string cow = put("cow", file.make());
    const auto shift = static_cast<std::uint32_t>(12 + (random() % 3));
    const std::string layer = out("made.oxb");
    const auto made =
        convert_to_layer(queue_, {.base = rdo, .cowfile = cow, .out = layer, .cluster_shift = shift}, {});
    ASSERT_TRUE(made) << made.error().text() << " seed " << seed;
    EXPECT_EQ(*made, file.data.size() * 1024);
    ASSERT_EQ(read_layer(layer), content(file, base)) << "seed " << seed;
    const std::string again = out("again");
    const auto head = convert_to_cowfile(
        queue_, {.layer = layer, .out = again, .layout = file.wide ? Layout::bytes_8 : Layout::bytes_4}, {});
    ASSERT_TRUE(head) << head.error().text() << " seed " << seed;
    ASSERT_EQ(get(again), file.make()) << "seed " << seed;
    EXPECT_EQ(get(rdo), base);
    EXPECT_EQ(files(), 4U);
  }
}

TEST_F(CowfileConvert, LayersComeBackClusterForCluster) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + test::repetitions(8, 100); ++seed) {
    std::mt19937_64 random(seed);
    Bytes base = base_of((100 + (random() % 200)) * 1024 + (random() % 2 == 0 ? random() % 1024 : 0));
    std::fill_n(base.begin() + 20000, 30000, std::byte{0});
    const std::string rdo = put("rdo", base);
    const auto shift = static_cast<std::uint32_t>(12 + (random() % 3));
    const std::string layer = random_layer(rdo, random, shift);
    std::vector<std::pair<Range, Kind>> before;
    const Bytes wanted = read_layer(layer, &before);
    const std::string cow = out("cow");
    const auto head = convert_to_cowfile(queue_, {.layer = layer, .out = cow}, {});
    ASSERT_TRUE(head) << head.error().text() << " seed " << seed;
    const auto check = check_cowfile(queue_, cow, {.base = rdo, .data = true, .progress = {}});
    ASSERT_TRUE(check) << check.error().text();
    EXPECT_TRUE(check->findings.empty()) << check->findings[0].why << " seed " << seed;
    EXPECT_EQ(check->unmarked, 0U);
    const std::string again = out("again.oxb");
    ASSERT_TRUE(
        convert_to_layer(queue_, {.base = rdo, .cowfile = cow, .out = again, .cluster_shift = shift}, {}));
    std::vector<std::pair<Range, Kind>> after;
    ASSERT_EQ(read_layer(again, &after), wanted) << "seed " << seed;
    // Which clusters are the layer's own stays the same; of those that hold zeros it isn't said any more how.
    std::vector<Range> owned_before;
    std::vector<Range> owned_after;
    for (auto* each : {&before, &after}) {
      auto& owned = each == &before ? owned_before : owned_after;
      for (const auto& [range, kind] : *each) {
        if (!owned.empty() && owned.back().end() == range.offset) {
          owned.back().length += range.length;
        } else {
          owned.push_back(range);
        }
      }
    }
    EXPECT_EQ(owned_after, owned_before) << "seed " << seed;
    const auto cow_again = out("cow-again");
    ASSERT_TRUE(convert_to_cowfile(queue_, {.layer = again, .out = cow_again}, {}));
    EXPECT_EQ(get(cow_again), get(cow)) << "seed " << seed;
  }
}

TEST_F(CowfileConvert, WhatNoCowfileCanBeIsRefused) {
  const Bytes base = base_of(64 * 1024 + 300);
  const std::string rdo = put("rdo", base);
  const auto why = [&](const std::string& layer) {
    const std::string cow = out("cow");
    const auto head = convert_to_cowfile(queue_, {.layer = layer, .out = cow}, {});
    EXPECT_FALSE(std::filesystem::exists(cow));
    return head ? "converted" : head.error().why();
  };
  const std::string lower = folder_.path("lower.oxb");
  ASSERT_TRUE(create_layer(queue_, {.path = lower, .base = rdo}));
  const std::string upper = folder_.path("upper.oxb");
  ASSERT_TRUE(create_layer(queue_, {.path = upper, .base = lower, .base_kind = native::BaseKind::layer}));
  EXPECT_EQ(why(upper),
            "its base is a layer too, and a cowfile can only be over a file: merge it into its base first");
  std::filesystem::remove(upper);
  const std::string longer = folder_.path("longer.oxb");
  ASSERT_TRUE(create_layer(queue_, {.path = longer, .base = rdo, .size_bytes = 100 * 1024}));
  EXPECT_EQ(why(longer), "its device has 102400 bytes, and its base " + rdo +
                             " has 65836: a cowfile is never longer than its read-only file");
  {
    const auto opened = open_device(queue_, LayerSpec{lower}, {.name = lower});
    const Bytes byte(1, std::byte{9});
    ASSERT_TRUE(run_blocking(queue_, [&](Io& io) {
                  return opened->device->write(io, 64 * 1024 + 100, byte, Durability::with_flush);
                }).ok());
    ASSERT_TRUE(opened->device->close(queue_).ok());
  }
  EXPECT_EQ(why(lower),
            "it has changes behind byte 65536, where the last whole block of 1024 bytes of its base ends");
  EXPECT_NE(why(rdo).find("to be an oxbow layer"), std::string::npos) << why(rdo);
}

TEST_F(CowfileConvert, CowfilesThatAreRefusedLeaveNothing) {
  const Bytes base = base_of(20 * 1024);
  const std::string rdo = put("rdo", base);
  CowfileBytes file{.flags = 1, .fingerprint = fingerprint_bytes(base), .data = {{3, block_of(7)}}};
  const auto why = [&] {
    const std::string layer = folder_.path("layer.oxb");
    const auto made =
        convert_to_layer(queue_, {.base = rdo, .cowfile = put("cow", file.make()), .out = layer}, {});
    EXPECT_EQ(files(), 2U);
    return made ? "converted" : made.error().text();
  };
  const std::string cow = folder_.path("cow");
  EXPECT_EQ(why(),
            "cannot convert cowfile: " + cow +
                ": it is dirty: it was not closed, and its bitmap may lack blocks that were written; oxbow "
                "repair completes it");
  file.flags = 0;
  file.fingerprint ^= 1;
  EXPECT_NE(why().find("it is not the file that the cowfile belongs to"), std::string::npos);
  file.fingerprint ^= 1;
  put("layer.oxb", {});
  EXPECT_EQ(
      convert_to_layer(
          queue_, {.base = rdo, .cowfile = put("cow", file.make()), .out = folder_.path("layer.oxb")}, {})
          .error()
          .why(),
      "it exists already");
}

}  // namespace
}  // namespace oxbow::cowloop
