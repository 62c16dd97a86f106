// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/block_status.h"

#include <gtest/gtest.h>

#include <fstream>
#include <numeric>

#include "exports/nbd/test_replies.h"
#include "stores/file/file_store.h"
#include "stores/ram/ram_store.h"
#include "stores/testing/store_model.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/layer_file.h"
#include "targets/linear/linear_target.h"
#include "targets/zero/zero_target.h"

namespace oxbow::nbd {
namespace {

using Pairs = std::vector<std::pair<std::uint32_t, std::uint32_t>>;

constexpr std::uint32_t k_einval = 22;
constexpr std::uint32_t k_hole = status_flag::k_hole | status_flag::k_zero;
constexpr std::uint64_t k_size = (64 << 20) + 300;
constexpr Negotiated k_allocation{.structured_replies = true, .allocation = true};
constexpr Negotiated k_both{.structured_replies = true, .allocation = true, .depth = true};

// A RAM disk whose page 2 is present.
class NbdBlockStatus : public ::testing::Test {
 protected:
  void write(const Session& session, std::uint64_t at, std::uint32_t length) {
    ASSERT_EQ(session.talk(request(Command::write, 1, at, length) + pattern(length, 1), 16), simple_reply(1));
  }
  std::shared_ptr<RamStore> ram = *RamStore::create({.size_bytes = k_size});
  Device device{std::make_shared<LinearTarget>(ram, "ram", Range{0, k_size}, true), {.name = "ram"}};
};

TEST_F(NbdBlockStatus, TellsHolesAndData) {
  Session session(device, k_allocation);
  write(session, 8192, 4096);
  const ReceivedReply reply = ask(session, Command::block_status, 2, 0, 65536);
  ASSERT_EQ(reply.chunks.size(), 1U);
  EXPECT_EQ(reply.status.at(1), (Pairs{{8192, k_hole}, {4096, 0}, {65536 - 12288, k_hole}}));
  const ReceivedReply odd = ask(session, Command::block_status, 3, 8191, 2);
  EXPECT_EQ(odd.status.at(1), (Pairs{{1, k_hole}, {1, 0}}));
}

TEST_F(NbdBlockStatus, OneExtentStaysWithinTheRequest) {
  Session session(device, k_both);
  write(session, 8192, 4096);
  for (const auto& [offset, length, expected, flags] :
       std::vector<std::tuple<std::uint64_t, std::uint32_t, std::uint32_t, std::uint32_t>>{
           {0, 65536, 8192, k_hole}, {0, 100, 100, k_hole}, {8192, 65536, 4096, 0}, {9000, 1, 1, 0}}) {
    const ReceivedReply reply =
        ask(session, Command::block_status, 2, offset, length, command_flag::k_req_one);
    EXPECT_EQ(reply.status.at(1), (Pairs{{expected, flags}})) << offset;
    EXPECT_EQ(reply.status.at(2).size(), 1U);
    EXPECT_LE(reply.status.at(2)[0].first, length);
  }
}

TEST_F(NbdBlockStatus, EveryContextIsAnsweredOnce) {
  Session session(device, k_both);
  const ReceivedReply reply = ask(session, Command::block_status, 2, 0, 4096);
  ASSERT_EQ(reply.chunks.size(), 2U);
  EXPECT_FALSE(reply.chunks[0].done);
  EXPECT_EQ(reply.status.at(1), (Pairs{{4096, k_hole}}));
  EXPECT_EQ(reply.status.at(2), (Pairs{{4096, 1}}));
  Session depth(device, {.structured_replies = true, .depth = true});
  const ReceivedReply one = ask(depth, Command::block_status, 2, 0, 4096);
  EXPECT_EQ(one.status.size(), 1U);
  EXPECT_EQ(one.status.at(2), (Pairs{{4096, 1}}));
}

TEST_F(NbdBlockStatus, IsRefusedWhereItMakesNoSense) {
  Session none(device, {.structured_replies = true});
  EXPECT_EQ(ask(none, Command::block_status, 1, 0, 4096).error, k_einval);
  Session simple(device, {});
  EXPECT_EQ(simple.talk(request(Command::block_status, 1, 0, 4096), 16), simple_reply(1, k_einval));
  Session session(device, k_allocation);
  EXPECT_EQ(ask(session, Command::block_status, 1, 0, 0).error, k_einval);
  EXPECT_EQ(ask(session, Command::block_status, 1, k_size, 1).error, k_einval);
  EXPECT_EQ(ask(session, Command::block_status, 1, k_size - 1, 2).error, k_einval);
  EXPECT_EQ(ask(session, Command::block_status, 1, ~std::uint64_t{0} - 5, 4096).error, k_einval);
  EXPECT_EQ(ask(session, Command::block_status, 1, 0, 4096, command_flag::k_df).error, k_einval);
  EXPECT_EQ(ask(session, Command::block_status, 1, 0, 4096, command_flag::k_fua).error, 0U);
}

TEST_F(NbdBlockStatus, LastBytesOfAnOddSize) {
  Session session(device, k_allocation);
  write(session, k_size - 1, 1);
  const ReceivedReply reply = ask(session, Command::block_status, 2, k_size - 301, 301);
  EXPECT_EQ(reply.status.at(1), (Pairs{{1, k_hole}, {300, 0}}));
}

TEST_F(NbdBlockStatus, AnswersAreBoundedAndAddUp) {
  Session session(device, k_allocation);
  // More extents than fit: every second page.
  for (std::uint64_t at = 0; at < 32 << 20; at += 8192) write(session, at, 1);
  std::uint64_t at = 0;
  std::uint32_t flags = 0;
  while (at < 32 << 20) {
    const ReceivedReply reply =
        ask(session, Command::block_status, 2, at, static_cast<std::uint32_t>((32 << 20) - at));
    const Pairs& pairs = reply.status.at(1);
    EXPECT_LE(pairs.size(), k_max_descriptors);
    for (const auto& [length, status] : pairs) {
      ASSERT_EQ(length, 4096U);
      ASSERT_EQ(status, flags) << at;
      flags = flags == 0 ? k_hole : 0;
      at += length;
    }
  }
  EXPECT_EQ(at, 32U << 20);
}

TEST(NbdBlockStatusLarge, NeighboursThatAreAlikeAreJoinedUpToTheWholeRequest) {
  constexpr std::uint64_t k_huge = std::uint64_t{1} << 40;
  Device device(std::make_shared<ZeroTarget>(k_huge, true), {.name = "zero"});
  Session session(device, k_both);
  const ReceivedReply reply = ask(session, Command::block_status, 2, 12345, ~std::uint32_t{0});
  EXPECT_EQ(reply.status.at(1), (Pairs{{~std::uint32_t{0}, k_hole}}));
  EXPECT_EQ(reply.status.at(2), (Pairs{{~std::uint32_t{0}, 1}}));
}

TEST(NbdBlockStatusDepth, NamesTheLayerThatHasIt) {
  // Cluster 0: written here; 1: the base's data; 2: a hole of the base; 3: zeroed here; 4: behind the base.
  constexpr std::uint32_t k_cluster = 4096;
  testing::TestFolder folder;
  Queue queue;
  const std::string path = folder.file("base.img", 4 * k_cluster);
  std::fstream(path, std::ios::in | std::ios::out | std::ios::binary) << std::string(2 * k_cluster, 'b');
  auto base_store = FileStore::open(path, {});
  ASSERT_TRUE(base_store);
  auto base = std::make_shared<LinearTarget>(*base_store, path, Range{0, 4 * k_cluster}, false);
  std::ofstream(folder.path("layer.oxb")).close();
  auto layer_store = FileStore::open(folder.path("layer.oxb"), {.writable = true});
  ASSERT_TRUE(layer_store);
  LayerDescription description;
  description.size_bytes = 5 * k_cluster;
  description.base.kind = native::BaseKind::raw;
  description.base.size = 4 * k_cluster;
  description.base_path = "base.img";
  ASSERT_TRUE(format_layer(queue, **layer_store, description));
  auto layer = CowTarget::open(queue, *layer_store, base, {.writable = true});
  ASSERT_TRUE(layer) << layer.error().text();
  Device device(*layer, {.name = "layer"});
  {
    Session session(device, k_both);
    ASSERT_EQ(session.talk(request(Command::write, 1, 0, 10) + pattern(10, 1), 16), simple_reply(1));
    ASSERT_EQ(session.talk(request(Command::write_zeroes, 2, 3 * k_cluster, k_cluster), 16), simple_reply(2));
    const ReceivedReply reply = ask(session, Command::block_status, 3, 0, 5 * k_cluster);
    EXPECT_EQ(reply.status.at(1), (Pairs{{2 * k_cluster, 0}, {3 * k_cluster, k_hole}}));
    EXPECT_EQ(reply.status.at(2),
              (Pairs{{k_cluster, 1}, {2 * k_cluster, 2}, {k_cluster, 1}, {k_cluster, 0}}));
  }
  EXPECT_TRUE(device.close(queue).ok());
}

}  // namespace
}  // namespace oxbow::nbd
