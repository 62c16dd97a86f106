// SPDX-License-Identifier: Apache-2.0
// Layers as former versions wrote them, which must stay readable: golden/README.md says what they are.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "format/hexdump.h"
#include "format/scratch.h"
#include "formats/native/codec.h"
#include "stores/open_stores.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/layer_file.h"
#include "targets/cow/open_layer.h"
#include "targets/linear/linear_target.h"

namespace oxbow::test {
namespace {

constexpr std::uint64_t k_base_bytes = 196 * 512;
constexpr std::uint64_t k_device_bytes = (64 << 20) + 512;
constexpr std::uint64_t k_cluster_bytes = 4096;
constexpr std::uint64_t k_page_span = native::k_clusters_per_page * k_cluster_bytes;
constexpr std::int64_t k_base_mtime_ns = 1'767'182'400'000'000'000;
constexpr const char* k_base_name = "base.img";

// What a session does, in order.
struct Act {
  enum class What : std::uint8_t { write, zero, allocate, discard, flush } what;
  std::uint64_t at = 0;
  std::uint64_t length = 0;
  bool durable = false;
};
using What = Act::What;
using Session = std::vector<Act>;

const Session k_first{{What::write, 0, 4096},
                      {What::write, 10'000, 9'001},
                      {What::zero, 40'000, 20'000},
                      {What::allocate, 70'000, 10'000},
                      {What::flush},
                      {What::write, k_page_span - 1'000, 2'000},
                      {What::discard, 90'112, 20'480}};
const Session k_second{{What::write, 4'000, 300},
                       {What::write, 20'480, 4'096, true},
                       {What::write, 41'000, 100},
                       {What::write, k_device_bytes - 3, 3}};
const Session k_before_the_cut{{What::write, 8 << 20, 4'096}, {What::flush}};
// Goes to the second sector of the state page.
const Session k_cut_off{{What::write, (8 << 20) + 8'192, 4'096}, {What::flush}};
const Session k_before_the_ring{{What::write, 12'288, 4'096}, {What::flush}};
// Within the first k_ring_span bytes: a fresh cluster, a part of one that is data, a discard, a FUA write.
const Session k_in_the_ring{{What::write, 163'840, 4'096},  {What::flush}, {What::write, 12'800, 700},
                            {What::discard, 20'480, 8'192}, {What::flush}, {What::write, 13'000, 50, true}};
constexpr std::uint64_t k_ring_span = 196'608;
const Session k_of_the_child{{What::write, 100, 1'000}, {What::discard, 8 << 20, 4'096}, {What::flush}};

// The same on plain bytes.
void apply(const Session& session, std::string_view who, std::string& bytes) {
  for (const Act& act : session) {
    if (act.what == What::flush) continue;
    std::uint64_t at = act.at;
    std::uint64_t end = act.at + act.length;
    if (act.what == What::discard) {
      at = (at + k_cluster_bytes - 1) / k_cluster_bytes * k_cluster_bytes;
      end = end / k_cluster_bytes * k_cluster_bytes;
    }
    bytes.replace(at, end - at,
                  act.what == What::write ? content(who, at, end - at) : std::string(end - at, '\0'));
  }
}

std::string base_bytes() { return content("ba", 0, k_base_bytes); }

// What the golden layers read as.
std::string expected_of(const std::string& name) {
  std::string bytes = base_bytes();
  bytes.resize(k_device_bytes);
  apply(k_first, "s1", bytes);
  apply(k_second, "s2", bytes);
  if (name == "clean") return bytes;
  if (name == "child") {
    apply(k_of_the_child, "ch", bytes);
  } else if (name == "ring") {
    apply(k_before_the_ring, "r1", bytes);
    apply(k_in_the_ring, "r2", bytes);
  } else {
    apply(k_before_the_cut, "s3", bytes);
  }
  return bytes;
}

void carry_out(Queue& queue, Device& device, const Session& session, std::string_view who) {
  for (const Act& act : session) {
    const std::string data = act.what == What::write ? content(who, act.at, act.length) : "";
    const Range range{act.at, act.length};
    const Durability durability = act.durable ? Durability::when_completed : Durability::with_flush;
    const IoStatus status = run_blocking(queue, [&](Io& io) {
      switch (act.what) {
        case What::write:
          return device.write(io, act.at, std::as_bytes(std::span(data)), durability);
        case What::zero:
        case What::allocate:
          return device.zero(io, range, act.what == What::allocate, durability);
        case What::discard:
          return device.discard(io, range, durability);
        case What::flush:
          break;
      }
      return device.flush(io);
    });
    ASSERT_TRUE(status.ok()) << status.error_number();
  }
}

class GoldenFiles : public ::testing::Test {
 protected:
  explicit GoldenFiles(unsigned version) : version_(version) {}
  void SetUp() override { make_file(path(k_base_name), base_bytes(), k_base_mtime_ns); }

  [[nodiscard]] std::string path(std::string_view name) const { return scratch_.path(name); }
  [[nodiscard]] std::string file_name(const std::string& name) const {
    return "version-" + std::to_string(version_) + "-" + name + ".hexdump";
  }
  [[nodiscard]] std::string golden(const std::string& name) const {
    const char* root = std::getenv("OXBOW_SOURCE_DIR");
    return std::string(root == nullptr ? "." : root) + "/tests/format/golden/" + file_name(name);
  }
  void restore(const std::string& name) {
    ASSERT_TRUE(std::filesystem::exists(golden(name))) << golden(name);
    ASSERT_EQ(restore_file(read_file(golden(name)), path(name + ".oxb")), "");
  }

  // As the command line opens it, the base's identity checked.
  [[nodiscard]] std::unique_ptr<Device> open(const std::string& name, bool writable) {
    OpenContext context{.queue = queue_, .stores = stores_, .writable = writable};
    auto layer = open_layer(context, path(name + ".oxb"));
    EXPECT_TRUE(layer) << layer.error().text();
    return layer ? std::make_unique<Device>(*layer, Device::Options{name, !writable}) : nullptr;
  }
  void expect_contents(const std::string& name, bool writable) {
    const auto device = open(name, writable);
    ASSERT_NE(device, nullptr);
    ASSERT_EQ(device->size(), k_device_bytes);
    const std::string expected = expected_of(name);
    const std::string found = read_device(queue_, *device, 0, k_device_bytes);
    if (found != expected) {
      const auto differs = std::ranges::mismatch(found, expected).in1 - found.begin();
      ADD_FAILURE() << name << " differs from byte " << differs << " on";
    }
    EXPECT_TRUE(device->close(queue_).ok());
  }

  // Makes the layer anew and carries out `sessions`, each closed cleanly but the last one of "torn" and "ring".
  void write_again(const std::string& name);
  void cut_off(Store& layer, Device& device);
  void append(const std::shared_ptr<Store>& layer, const std::shared_ptr<Target>& base);
  [[nodiscard]] LayerDescription describe(const std::string& name);

  unsigned version_;
  Scratch scratch_;
  Queue queue_;
  OpenStores stores_;
};

// As each version wrote them.
class Golden : public GoldenFiles, public ::testing::WithParamInterface<unsigned> {
 protected:
  Golden() : GoldenFiles(GetParam()) {}
};
INSTANTIATE_TEST_SUITE_P(Versions, Golden, ::testing::Values(0U, 1U));

// As this version writes them.
class GoldenNow : public GoldenFiles {
 protected:
  GoldenNow() : GoldenFiles(native::k_version) {}
};

TEST_P(Golden, ACleanLayerIsRead) {
  ASSERT_NO_FATAL_FAILURE(restore("clean"));
  expect_contents("clean", false);
  EXPECT_TRUE(hexdump_file(path("clean.oxb")) == read_file(golden("clean"))) << "reading wrote to it";
  expect_contents("clean", true);
}

TEST_P(Golden, ATornFlushIsRecovered) {
  ASSERT_NO_FATAL_FAILURE(restore("torn"));
  expect_contents("torn", false);
  expect_contents("torn", true);  // and closed, which leaves it clean
  expect_contents("torn", false);
  const auto device = open("torn", false);
  ASSERT_NE(device, nullptr);
  const auto& layer = dynamic_cast<const CowTarget&>(*device->target());
  EXPECT_EQ(layer.superblock().state, native::LayerState::clean);
}

TEST_P(Golden, AChildIsReadThroughItsBase) {
  ASSERT_NO_FATAL_FAILURE(restore("clean"));
  ASSERT_NO_FATAL_FAILURE(restore("child"));
  expect_contents("child", false);
  expect_contents("child", true);
}

TEST_F(GoldenNow, WhatTheCommitRingHoldsIsRecovered) {
  ASSERT_NO_FATAL_FAILURE(restore("ring"));
  expect_contents("ring", true);
  ASSERT_NO_FATAL_FAILURE(restore("ring"));
  expect_contents("ring", false);  // which recovers it first
}

TEST_P(Golden, AHolderIsReadable) {
  ASSERT_NO_FATAL_FAILURE(restore("clean"));
  const auto store = FileStore::open(path("clean.oxb"), {});
  ASSERT_TRUE(store);
  native::Holder holder{};
  const std::string bytes = read_store(queue_, **store, 2 * native::k_apart_bytes, sizeof(holder));
  std::memcpy(&holder, bytes.data(), sizeof(holder));
  EXPECT_TRUE(native::valid(holder));
  EXPECT_EQ(holder.pid, 4242U);
  EXPECT_STREQ(holder.command.data(), "oxbow serve work.oxb");
}

// --- how they were written ---

LayerDescription GoldenFiles::describe(const std::string& name) {
  LayerDescription description;
  description.uuid.fill(name == "child" ? 0xc4 : 0xc1);
  description.salt = 0x5eed;
  description.created_ns = 1'767'225'600'000'000'000;
  description.size_bytes = k_device_bytes;
  description.max_size_bytes = 256 << 20;
  const std::string base = name == "child" ? "clean.oxb" : k_base_name;
  OpenContext context{.queue = queue_, .stores = stores_};
  const auto kind = name == "child" ? native::BaseKind::layer : native::BaseKind::raw;
  auto described = describe_base(context, path(base), kind, description.uuid);
  EXPECT_TRUE(described) << described.error().text();
  if (described) description.base = described->record;
  if (kind == native::BaseKind::raw) {
    description.base.device = 0x801;  // of another machine
    description.base.inode = 131;
  }
  description.base_path = base;
  return description;
}

// Flushes once more, and lets the state page be torn: its second sector didn't get to the disk.
void GoldenFiles::cut_off(Store& layer, Device& device) {
  const auto& superblock = dynamic_cast<const CowTarget&>(*device.target()).superblock();
  constexpr std::uint64_t k_torn = 512;
  std::array<std::string, 2> before;
  for (std::size_t slot = 0; slot < 2; ++slot) {
    before[slot] = read_store(queue_, layer, superblock.slot_offset[slot], native::k_page_bytes);
  }
  carry_out(queue_, device, k_cut_off, "s4");
  unsigned torn = 0;
  for (std::size_t slot = 0; slot < 2; ++slot) {
    const std::uint64_t at = superblock.slot_offset[slot];
    if (read_store(queue_, layer, at, native::k_page_bytes) == before[slot]) continue;
    const auto old = std::as_bytes(std::span(before[slot])).subspan(k_torn, k_torn);
    write_store(queue_, layer, at + k_torn, old);
    ++torn;
  }
  ASSERT_EQ(torn, 1U);
}

// A session whose small flushes are in the commit ring and nowhere else: what they wrote to its place is lost.
void GoldenFiles::append(const std::shared_ptr<Store>& layer, const std::shared_ptr<Target>& base) {
  auto target =
      CowTarget::open(queue_, layer, base,
                      {.writable = true,
                       .ring = layer,
                       .ring_growth = {.small_flushes = 1, .first_bytes = 32 << 10, .step_bytes = 32 << 10}});
  ASSERT_TRUE(target) << target.error().text();
  const std::uint64_t data = (*target)->superblock().data_offset;
  Device device(*target, {.name = "ring"}, queue_);
  carry_out(queue_, device, k_before_the_ring, "r1");
  const std::string before = read_store(queue_, *layer, data, k_ring_span);
  carry_out(queue_, device, k_in_the_ring, "r2");
  write_store(queue_, *layer, data, std::as_bytes(std::span(before)));
}

void GoldenFiles::write_again(const std::string& name) {
  const auto store = make_store(path(name + ".oxb"));
  const LayerDescription description = describe(name);
  ASSERT_TRUE(format_layer(queue_, *store, description));
  native::Holder holder{};
  holder.magic = native::k_holder_magic;
  holder.pid = 4242;
  holder.started_ns = 1'767'225'700'000'000'000;
  std::ranges::copy(std::string_view("alder"), holder.host.begin());
  std::ranges::copy(std::string_view("oxbow serve work.oxb"), holder.command.begin());
  native::seal(holder);
  write_store(queue_, *store, 2 * native::k_apart_bytes, std::as_bytes(std::span(&holder, 1)));

  OpenContext context{.queue = queue_, .stores = stores_};
  std::vector<std::pair<const Session*, std::string_view>> sessions{{&k_first, "s1"}, {&k_second, "s2"}};
  if (name == "torn") sessions.emplace_back(&k_before_the_cut, "s3");
  if (name == "child") sessions = {{&k_of_the_child, "ch"}};
  for (const auto& [session, who] : sessions) {
    auto base = describe_base(context, path(description.base_path), description.base.kind, description.uuid);
    ASSERT_TRUE(base) << base.error().text();
    auto target = CowTarget::open(queue_, store, base->target, {.writable = true});
    ASSERT_TRUE(target) << target.error().text();
    Device device(*target, {.name = name});
    carry_out(queue_, device, *session, who);
    if (session == &k_before_the_cut) {
      cut_off(*store, device);
    } else {
      ASSERT_TRUE(device.close(queue_).ok());
    }
  }
  if (name == "ring") {
    auto base = describe_base(context, path(description.base_path), description.base.kind, description.uuid);
    ASSERT_TRUE(base) << base.error().text();
    append(store, base->target);
  }
}

// As long as the version that wrote them is the current one.
TEST_F(GoldenNow, IsWhatThisVersionWrites) {
  static_assert(native::k_version == 1,
                "the newest golden layers are of version 1: test that they can be read, and "
                "write new ones for the new version");
  for (const std::string name : {"clean", "torn", "child", "ring"}) {
    ASSERT_NO_FATAL_FAILURE(write_again(name));
    const std::string dump = hexdump_file(path(name + ".oxb"));
    if (dump == (std::filesystem::exists(golden(name)) ? read_file(golden(name)) : "")) continue;
    const std::string kept = ::testing::TempDir() + file_name(name);
    make_file(kept, dump, 0);
    ADD_FAILURE() << name << ": this oxbow writes other bytes than those of golden/: see " << kept;
  }
}

}  // namespace
}  // namespace oxbow::test
