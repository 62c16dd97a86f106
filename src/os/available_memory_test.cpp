// SPDX-License-Identifier: Apache-2.0
#include "os/available_memory.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <limits>

namespace oxbow {
namespace {

constexpr std::uint64_t k_mib = 1 << 20;

// A made-up machine of 1000 MiB.
class AvailableMemory : public ::testing::Test {
 protected:
  AvailableMemory() : root_((std::filesystem::temp_directory_path() / "oxbow-memory-XXXXXX").string()) {
    EXPECT_NE(::mkdtemp(root_.data()), nullptr);
    put("/proc/meminfo",
        "MemTotal:        2048000 kB\nMemAvailableX:  1 kB\nMemAvailable:    1024000 kB\nBuffers: 5 kB\n");
  }
  ~AvailableMemory() override { std::filesystem::remove_all(root_); }
  AvailableMemory(const AvailableMemory&) = delete;
  AvailableMemory& operator=(const AvailableMemory&) = delete;
  AvailableMemory(AvailableMemory&&) = delete;
  AvailableMemory& operator=(AvailableMemory&&) = delete;

  void put(const std::string& path, const std::string& text) const {
    const std::filesystem::path place = root_ + path;
    std::filesystem::create_directories(place.parent_path());
    std::ofstream(place) << text;
  }
  [[nodiscard]] std::uint64_t mib() const { return available_memory_bytes(root_) / k_mib; }

  std::string root_;
};

TEST_F(AvailableMemory, IsTheMachinesWithoutGroups) { EXPECT_EQ(mib(), 1000U); }

TEST_F(AvailableMemory, IsUnlimitedWhereNothingCanBeRead) {
  EXPECT_EQ(available_memory_bytes(root_ + "/nothing"), std::numeric_limits<std::uint64_t>::max());
}

TEST_F(AvailableMemory, IsWhatAGroupOfVersion2HasLeft) {
  put("/proc/self/cgroup", "0::/a/b\n");
  put("/sys/fs/cgroup/a/b/memory.max", "max\n");
  put("/sys/fs/cgroup/a/b/memory.current", "1048576\n");
  EXPECT_EQ(mib(), 1000U);
  put("/sys/fs/cgroup/a/b/memory.max", std::to_string(300 * k_mib) + "\n");
  EXPECT_EQ(mib(), 299U);
  put("/sys/fs/cgroup/a/b/memory.current", std::to_string(200 * k_mib) + "\n");
  put("/sys/fs/cgroup/a/b/memory.stat",
      "anon 7\ninactive_file 52428800\nactive_file 31457280\nshmem 1048576\n");
  EXPECT_EQ(mib(), 180U) << "cached files count as free";
}

TEST_F(AvailableMemory, IsTheLeastOfAGroupAndThoseThatItIsIn) {
  put("/proc/self/cgroup", "0::/a/b\n");
  put("/sys/fs/cgroup/a/b/memory.max", std::to_string(300 * k_mib) + "\n");
  put("/sys/fs/cgroup/a/memory.max", std::to_string(100 * k_mib) + "\n");
  put("/sys/fs/cgroup/a/memory.current", std::to_string(90 * k_mib) + "\n");
  EXPECT_EQ(mib(), 10U);
  put("/sys/fs/cgroup/a/memory.current", std::to_string(120 * k_mib) + "\n");
  EXPECT_EQ(mib(), 0U) << "the limit was lowered below what is in use";
}

TEST_F(AvailableMemory, KnowsVersion1) {
  put("/proc/self/cgroup", "9:cpu:/x\n4:hugetlb,memory:/host/only/path\n0::/\n");
  put("/sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(400 * k_mib) + "\n");
  put("/sys/fs/cgroup/memory/memory.usage_in_bytes", std::to_string(100 * k_mib) + "\n");
  put("/sys/fs/cgroup/memory/memory.stat", "inactive_file 9999999\ntotal_inactive_file 10485760\n");
  EXPECT_EQ(mib(), 310U) << "a path that only the host has: the mount is the group";
}

TEST_F(AvailableMemory, KnowsThisMachine) {
  EXPECT_GT(available_memory_bytes(), k_mib);
  EXPECT_LT(available_memory_bytes(), std::numeric_limits<std::uint64_t>::max());
}

}  // namespace
}  // namespace oxbow
