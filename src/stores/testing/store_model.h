// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

#include "os/queue.h"
#include "stores/store.h"

namespace oxbow::testing {

// A store's control-path calls, each waited for. Thread safety: the queue's thread.
class StoreUser {
 public:
  StoreUser(Queue& queue, Store& store) noexcept : queue_(queue), store_(store) {}
  [[nodiscard]] IoStatus read(std::uint64_t at, std::span<std::byte> out);
  [[nodiscard]] IoStatus write(std::uint64_t at, std::span<const std::byte> in,
                               WriteMode mode = WriteMode::cached);
  // The same bytes, cut at random into up to 8 buffers.
  [[nodiscard]] IoStatus write_gathered(std::uint64_t at, std::span<const std::byte> in, WriteMode mode,
                                        std::mt19937_64& random);
  [[nodiscard]] IoStatus zero(Range range, ZeroMode mode);
  [[nodiscard]] IoStatus discard(Range range);
  [[nodiscard]] IoStatus allocate(Range range);
  [[nodiscard]] IoStatus sync();
  [[nodiscard]] IoStatus grow(std::uint64_t size);
  // What extents() answers for the whole range, piece by piece, neighbours that are alike joined.
  [[nodiscard]] std::vector<Extent> extents(Range range);

 private:
  Queue& queue_;
  Store& store_;
};

struct ModelOptions {
  std::uint64_t seed = 1;      // unless OXBOW_TEST_SEED says another
  std::uint64_t steps = 1000;  // ten times as many in the long run
  std::uint64_t longest_bytes = 200'000;
  bool without_ring = false;  // as on a kernel that gives no io_uring
};

// Does random operations on a store and the same on an array of bytes, starting from what the store holds,
// and compares. Failures are GoogleTest's and name the seed.
void run_store_model(Store& store, const ModelOptions& options);

// `bytes` pseudo-random bytes.
[[nodiscard]] std::vector<std::byte> random_bytes(std::uint64_t seed, std::size_t bytes);

// A folder below the working folder (so on its file system), removed at the end.
class TestFolder {
 public:
  TestFolder();
  ~TestFolder();
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  TestFolder(TestFolder&&) = delete;
  TestFolder& operator=(TestFolder&&) = delete;

  [[nodiscard]] std::string path(const std::string& name) const { return (folder_ / name).string(); }
  // A sparse file of `size` bytes.
  [[nodiscard]] std::string file(const std::string& name, std::uint64_t size) const;

 private:
  std::filesystem::path folder_;
};

}  // namespace oxbow::testing
