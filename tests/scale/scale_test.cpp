// SPDX-License-Identifier: Apache-2.0
// A layer of 1 TiB over a sparse image of 1 TiB: memory follows what is touched, not the size. Times are printed,
// not judged.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "device/device.h"
#include "os/process_info.h"
#include "os/queue.h"
#include "stores/open_stores.h"
#include "support/effort.h"
#include "targets/cow/layer_file.h"
#include "targets/cow/open_layer.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_size_bytes = std::uint64_t{1} << 40;
constexpr std::uint64_t k_block_bytes = 4096;
constexpr std::uint64_t k_writes = 262'144;
constexpr const char* k_parent = "/dev/shm";
constexpr std::uint64_t k_room_bytes = std::uint64_t{3} << 29;

// Bytes of this process's own memory: anonymous and shared pages, without the program's code.
std::uint64_t own_memory_bytes() {
  std::ifstream status("/proc/self/status");
  std::uint64_t kib = 0;
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with("RssAnon:") && !line.starts_with("RssShmem:")) continue;
    std::istringstream words(line);
    std::string name;
    std::uint64_t value = 0;
    words >> name >> value;
    kib += value;
  }
  return kib << 10;
}

class Stopwatch {
 public:
  [[nodiscard]] double ms() const {
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

class ScaleTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // In memory: a disk's file system takes minutes to remove a file of so many extents.
    struct ::statvfs space{};
    if (::statvfs(k_parent, &space) != 0 || space.f_bavail * space.f_frsize < k_room_bytes) {
      GTEST_SKIP() << k_parent << " has no room for the writes";
    }
    std::string pattern = (std::filesystem::path(k_parent) / "oxbow-scale-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    directory_ = pattern;
    const UniqueFd base(::open(path("base.img").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
    ASSERT_TRUE(base.valid());
    if (::ftruncate(base.get(), static_cast<off_t>(k_size_bytes)) != 0) {
      GTEST_SKIP() << "the file system here holds no file of 1 TiB";
    }
  }
  void TearDown() override {
    if (!directory_.empty()) std::filesystem::remove_all(directory_);
  }

  [[nodiscard]] std::string path(const std::string& name) const { return directory_ + "/" + name; }

  void create() {
    Queue queue;
    OpenStores stores;
    OpenContext context{.queue = queue, .stores = stores};
    LayerDescription description{.size_bytes = k_size_bytes, .salt = 1, .base_path = "base.img"};
    ASSERT_TRUE(fill_random(std::as_writable_bytes(std::span(description.uuid))));
    auto base = describe_base(context, path("base.img"), native::BaseKind::raw, description.uuid);
    ASSERT_TRUE(base) << base.error().text();
    description.base = base->record;
    std::ofstream(path("work.oxb")).close();
    auto store = FileStore::open(path("work.oxb"), {.writable = true});
    ASSERT_TRUE(store) << store.error().text();
    auto formatted = format_layer(queue, **store, description);
    ASSERT_TRUE(formatted) << formatted.error().text();
  }

  // Memory after k_writes writes of 4 KiB at random places of the device's first `bytes`, in a process of its own.
  [[nodiscard]] std::uint64_t memory_after_writes(std::uint64_t bytes) {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return 0;
    const pid_t child = ::fork();
    if (child == 0) {
      const std::uint64_t memory = write_and_measure(bytes);
      const bool told = ::write(ends[1], &memory, sizeof(memory)) == sizeof(memory);
      std::_Exit(told ? 0 : 1);
    }
    ::close(ends[1]);
    std::uint64_t memory = 0;
    const bool told = ::read(ends[0], &memory, sizeof(memory)) == sizeof(memory);
    ::close(ends[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(told && status == 0);
    return memory;
  }

 private:
  [[nodiscard]] std::uint64_t write_and_measure(std::uint64_t bytes) const {
    const std::uint64_t before = own_memory_bytes();
    Queue queue;
    OpenStores stores;
    OpenContext context{.queue = queue, .stores = stores, .writable = true};
    const Stopwatch opening;
    auto layer = open_layer(context, path("work.oxb"));
    if (!layer) std::_Exit(2);
    std::printf("open: %.2f ms\n", opening.ms());
    Device device(*layer, {.name = "scale"});
    const std::vector<std::byte> data(k_block_bytes, std::byte{7});
    std::mt19937_64 random(4711);
    const Stopwatch writing;
    for (std::uint64_t i = 0; i < k_writes; ++i) {
      const std::uint64_t at = random() % (bytes / k_block_bytes) * k_block_bytes;
      const IoStatus status =
          run_blocking(queue, [&](Io& io) { return device.write(io, at, data, Durability::with_flush); });
      if (!status.ok()) std::_Exit(3);
    }
    const double written_ms = writing.ms();
    const std::uint64_t after_writes = own_memory_bytes() - before;
    const Stopwatch flushing;
    if (!run_blocking(queue, [&](Io& io) { return device.flush(io); }).ok()) std::_Exit(4);
    const std::uint64_t after_flush = own_memory_bytes() - before;
    std::printf(
        "%llu writes over %llu MiB: %.0f ms, flush %.0f ms; memory %.1f MiB, after the flush %.1f MiB\n",
        static_cast<unsigned long long>(k_writes), static_cast<unsigned long long>(bytes >> 20), written_ms,
        flushing.ms(), static_cast<double>(after_writes) / 1048576.0,
        static_cast<double>(after_flush) / 1048576.0);
    std::fflush(stdout);
    return std::max(after_writes, after_flush);
  }

  std::string directory_;
};

TEST_F(ScaleTest, CreatingTakesNoTimeForTheSize) {
  const Stopwatch creating;
  create();
  std::printf("create: %.2f ms\n", creating.ms());
  struct ::stat status{};
  ASSERT_EQ(::stat(path("work.oxb").c_str(), &status), 0);
  EXPECT_LT(status.st_blocks * 512, 256 << 10) << "a new layer is sparse";
}

TEST_F(ScaleTest, MemoryFollowsWhatIsTouched) {
  if (std::getenv("OXBOW_SANITIZE") != nullptr) GTEST_SKIP() << "a sanitizer has memory of its own";
  create();
  EXPECT_LT(memory_after_writes(std::uint64_t{1} << 30), std::uint64_t{16} << 20) << "inside one GiB";
}

TEST_F(ScaleTest, MemoryFollowsWhatIsTouchedEverywhere) {
  if (std::getenv("OXBOW_SANITIZE") != nullptr) GTEST_SKIP() << "a sanitizer has memory of its own";
  create();
  EXPECT_LT(memory_after_writes(k_size_bytes), std::uint64_t{64} << 20) << "all over the device";
}

}  // namespace
}  // namespace oxbow
