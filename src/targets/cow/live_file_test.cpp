// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/live_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "targets/cow/state_map.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_clusters = native::k_clusters_per_page * 5 + 77;

LiveIdentity identity() {
  LiveIdentity identity{.device = 7, .inode = 11};
  identity.uuid.fill(0xA5);
  identity.boot_id.fill(0x5A);
  return identity;
}

class LiveFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = "/dev/shm/oxbow-live-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    path_ = directory_ + "/live";
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::shared_ptr<LiveFile> create() {
    auto file = LiveFile::create(path_, identity());
    EXPECT_TRUE(file) << file.error().text();
    return *file;
  }
  [[nodiscard]] std::string refusal(const LiveIdentity& wanted = identity()) const {
    auto file = LiveFile::open(path_, wanted);
    return file ? "none" : file.error().text();
  }
  [[nodiscard]] std::string told(const std::string& why) const {
    return "cannot use live state: " + path_ + ": " + why;
  }
  void put(std::uint64_t at, const std::string& bytes) const {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(at));
    file << bytes;
  }

  std::string directory_;
  std::string path_;
};

UniqueFd memory() { return UniqueFd(::memfd_create("live", MFD_CLOEXEC | MFD_ALLOW_SEALING)); }

void publish(StateMap& map, std::uint64_t first, std::uint64_t count, ClusterState state) {
  ASSERT_TRUE(map.make_room(first, count).ok());
  map.publish(first, count, state);
}

TEST_F(LiveFileTest, SaysNothingBeforeASessionAndCountsInOne) {
  using Standing = LiveFile::Standing;
  const auto file = create();
  EXPECT_EQ(file->standing(4), Standing::nothing);
  file->begin_session(5);
  EXPECT_EQ(file->standing(4), Standing::nothing);
  EXPECT_EQ(file->standing(5), Standing::nothing);
  file->session_begun(5);
  EXPECT_EQ(file->standing(5), Standing::states);
  EXPECT_EQ(file->standing(4), Standing::other);
  const auto next = LiveFile::open(path_, identity());
  ASSERT_TRUE(next) << next.error().text();
  EXPECT_EQ((*next)->standing(5), Standing::states);
  (*next)->begin_session(6);
  EXPECT_EQ((*next)->standing(5), Standing::states);
  EXPECT_EQ((*next)->standing(6), Standing::states);
  EXPECT_EQ((*next)->standing(7), Standing::other);
  (*next)->mark_dead();
  EXPECT_EQ((*next)->standing(5), Standing::dead);
}

TEST_F(LiveFileTest, RemovesItsNameAndNoOther) {
  const auto first = create();
  const auto second = create();  // in its place
  first->remove();
  EXPECT_TRUE(std::filesystem::exists(path_));
  second->remove();
  EXPECT_FALSE(std::filesystem::exists(path_));
  EXPECT_EQ(std::filesystem::directory_iterator(directory_), std::filesystem::directory_iterator());
}

TEST_F(LiveFileTest, LiesOnTmpfsOnly) {
  const auto file = LiveFile::create("/proc/live", identity());
  ASSERT_FALSE(file);
  const char* const source = std::getenv("OXBOW_SOURCE_DIR");
  const std::string on_disk = std::string(source == nullptr ? "." : source) + "/live";
  const auto other = LiveFile::create(on_disk, identity());
  if (other) GTEST_SKIP() << "everything is on tmpfs here";
  EXPECT_EQ(other.error().text(), "cannot create live state: " + on_disk + ": it would not be on tmpfs");
  EXPECT_FALSE(std::filesystem::exists(on_disk));
}

TEST_F(LiveFileTest, RefusesWhatIsNotItsOwn) {
  EXPECT_EQ(refusal(), told("No such file or directory"));
  create();
  EXPECT_EQ(refusal(), "none");

  LiveIdentity wanted = identity();
  wanted.uuid[0] = 0;
  EXPECT_EQ(refusal(wanted), told("it is that of layer a5a5a5a5-a5a5-a5a5-a5a5-a5a5a5a5a5a5"));
  wanted = identity();
  wanted.inode = 12;
  EXPECT_EQ(refusal(wanted), told("it is that of another file with the same layer, which was copied"));
  wanted = identity();
  wanted.boot_id[15] = 0;
  EXPECT_EQ(refusal(wanted), told("it is of another boot"));
}

TEST_F(LiveFileTest, RefusesWhatSomebodyElseMayHaveMade) {
  create();
  ::chmod(path_.c_str(), 0640);
  EXPECT_EQ(refusal(), told("its mode is 0640, not 0600"));
  ::chmod(path_.c_str(), 0600);
  const std::string real = directory_ + "/real";
  std::filesystem::rename(path_, real);
  std::filesystem::create_symlink(real, path_);
  EXPECT_EQ(refusal(), told("it is a symbolic link"));
  std::filesystem::remove(path_);
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  EXPECT_EQ(refusal(), told("it is not a regular file"));
}

TEST_F(LiveFileTest, RefusesWhatIsDamaged) {
  create();
  put(20, "!");
  EXPECT_EQ(refusal(), told("it is damaged: its checksum is wrong"));
  create();
  put(0, "!");
  EXPECT_EQ(refusal(), told("it is no live state"));
  create();
  std::filesystem::resize_file(path_, 5000);
  EXPECT_EQ(refusal(), told("it is damaged: 5000 bytes long"));
  std::filesystem::resize_file(path_, 0);
  EXPECT_EQ(refusal(), told("it is damaged: 0 bytes long"));
}

TEST_F(LiveFileTest, CarriesTheStatesOver) {
  constexpr unsigned k_seed = 77;
  SCOPED_TRACE(k_seed);
  std::mt19937_64 random(k_seed);
  auto model = std::make_unique<StateMap>(k_clusters);
  {
    StateMap map(k_clusters, create());
    for (int i = 0; i < 300; ++i) {
      const std::uint64_t first = random() % (k_clusters - 40);
      const std::uint64_t count = 1 + (random() % 40);
      const ClusterState state = random() % 3 == 0 ? ClusterState::zero : ClusterState::data;
      publish(map, first, count, state);
      publish(*model, first, count, state);
    }
  }  // nothing is written at the end: a kill has none
  auto found = LiveFile::open(path_, identity());
  ASSERT_TRUE(found) << found.error().text();
  StateMap map(k_clusters, *found);
  ASSERT_TRUE(map.adopt());
  EXPECT_EQ(map.leaves(), model->leaves());
  EXPECT_EQ(map.pages_with_leaves(), model->pages_with_leaves());
  for (std::uint64_t cluster = 0; cluster < k_clusters; ++cluster) {
    ASSERT_EQ(map.state(cluster), model->state(cluster)) << cluster;
  }
  publish(map, k_clusters - 1, 1, ClusterState::data);  // it goes on
  EXPECT_EQ(map.state(k_clusters - 1), ClusterState::data);
}

// An adopted leaf is newer than its page on the disk; other leaves of the page come from there.
TEST_F(LiveFileTest, LiveLeavesComeBeforeTheDisks) {
  {
    StateMap map(k_clusters, create());
    publish(map, 3, 1, ClusterState::zero);
  }
  StateMap map(k_clusters, *LiveFile::open(path_, identity()));
  ASSERT_TRUE(map.adopt());
  native::StatePage page{};
  page.leaves[0][0] = ~std::uint64_t{0};
  page.leaves[1][0] = 3;
  ASSERT_TRUE(map.install(0, page).ok());
  EXPECT_EQ(map.state(3), ClusterState::zero);
  EXPECT_EQ(map.state(4), ClusterState::absent);
  EXPECT_EQ(map.state(native::k_clusters_per_leaf), ClusterState::data);
}

TEST_F(LiveFileTest, DamagedStatesAreNotTaken) {
  constexpr std::uint64_t k_page = sizeof(native::LiveHeader);
  constexpr std::uint64_t k_leaf = k_page + offsetof(native::LivePage, leaves);
  struct Damage {
    std::uint64_t at;
    std::string bytes;
  };
  const std::vector<Damage> damages{
      {k_page + 7, "!"},                      // an owner beyond the layer
      {k_page + 8, std::string(1, '\x01')},   // one that owns two
      {k_page + 24, std::string(1, '\x07')},  // one behind a free place
      {k_leaf + 5, std::string(1, '\x80')},   // the invalid state
  };
  for (const Damage& damage : damages) {
    {
      StateMap map(k_clusters, create());
      publish(map, 0, 1, ClusterState::data);
      publish(map, 256, 1, ClusterState::data);
    }
    put(damage.at, damage.bytes);
    StateMap map(k_clusters, *LiveFile::open(path_, identity()));
    EXPECT_FALSE(map.adopt()) << "byte " << damage.at;
  }
  {
    StateMap map(k_clusters, create());
    publish(map, k_clusters - 1, 1, ClusterState::data);
  }
  StateMap smaller(100, *LiveFile::open(path_, identity()));
  EXPECT_FALSE(smaller.adopt());
}

// Where memory ends, room is refused, and what has room goes on.
TEST(LiveMemory, IsHadBeforeItIsPromised) {
  UniqueFd fd = memory();
  const UniqueFd same(::dup(fd.get()));
  auto file = LiveFile::create_in_memory(std::move(fd), {.text = "live"}, identity());
  ASSERT_TRUE(file) << file.error().text();
  StateMap map(std::uint64_t{1} << 40, *file);
  publish(map, 0, 1, ClusterState::data);
  ASSERT_EQ(::fcntl(same.get(), F_ADD_SEALS, F_SEAL_GROW), 0);
  std::uint64_t leaf = 0;
  while (map.make_room(leaf * native::k_clusters_per_leaf, 1).ok()) ++leaf;
  EXPECT_EQ(leaf, native::k_leaves_per_live_page);
  EXPECT_EQ(map.make_room(std::uint64_t{1} << 39, 1), IoStatus::error(ENOMEM));
  native::StatePage page{};
  page.leaves[0][0] = 3;
  EXPECT_EQ(map.install(1000, page), IoStatus::error(ENOMEM));
  map.publish(1, 50, ClusterState::data);
  EXPECT_EQ(map.run(0, 100).count, 51U);
}

// Little memory for little, also where it is scattered.
TEST(LiveMemory, FollowsWhatIsTouched) {
  UniqueFd fd = memory();
  const UniqueFd same(::dup(fd.get()));
  auto file = LiveFile::create_in_memory(std::move(fd), {.text = "live"}, identity());
  ASSERT_TRUE(file) << file.error().text();
  StateMap map(std::uint64_t{1} << 40, *file);
  const auto bytes = [&] {
    struct ::stat info{};
    EXPECT_EQ(::fstat(same.get(), &info), 0);
    return static_cast<std::uint64_t>(info.st_blocks) * 512;
  };
  publish(map, 12345, 1, ClusterState::data);
  EXPECT_LE(bytes(), 2 * native::k_live_page_bytes);
  std::mt19937_64 random(1);
  constexpr std::uint64_t k_leaves = 100'000;
  while (map.leaves() < k_leaves) publish(map, random() % (std::uint64_t{1} << 40), 1, ClusterState::data);
  const std::uint64_t needed = k_leaves / native::k_leaves_per_live_page * native::k_live_page_bytes;
  EXPECT_LE(bytes(), needed + (needed / 4));
}

// A process that takes over pages as fast as it can is killed at moments that nobody chooses: whatever leaf has an
// owner then is whole.
TEST(LiveMemory, ALeafThatIsOwnedIsWholeWhenTheProcessIsKilled) {
  constexpr std::uint64_t k_many = std::uint64_t{1} << 30;
  constexpr unsigned k_kills = 60;
  std::uint64_t found = 0;
  for (unsigned kill = 0; kill < k_kills; ++kill) {
    UniqueFd fd = memory();
    UniqueFd same(::dup(fd.get()));
    auto file = LiveFile::create_in_memory(std::move(fd), {.text = "live"}, identity());
    ASSERT_TRUE(file) << file.error().text();
    const pid_t child = ::fork();
    if (child == 0) {
      StateMap map(k_many, *file);
      native::StatePage page{};
      for (native::LeafWords& leaf : page.leaves) leaf.fill(~std::uint64_t{0});
      for (std::uint64_t i = 0;; ++i) {
        if (!map.install(i, page).ok()) std::_Exit(1);
      }
    }
    ::usleep(500 + kill * 37);
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    auto left = LiveFile::open_in_memory(std::move(same), {.text = "live"}, identity());
    ASSERT_TRUE(left) << left.error().text();
    StateMap map(k_many, *left);
    ASSERT_TRUE(map.adopt());
    found += map.leaves();
    const std::uint64_t clusters = map.leaves() * native::k_clusters_per_leaf;
    if (clusters == 0) continue;
    const StateMap::Run run = map.run(0, clusters);
    EXPECT_EQ(run.state, ClusterState::data);
    EXPECT_EQ(run.count, clusters) << "kill " << kill;
  }
  EXPECT_GT(found, 0U);
}

}  // namespace
}  // namespace oxbow
