// SPDX-License-Identifier: Apache-2.0
// flush-bench DIRECTORY [ROUNDS]: what a first write of 4 KiB and its flush cost, one after the other, each block once:
// into a sparse file (one barrier), into a layer with its commit ring, and into one without (two barriers). The three
// take turns in short rounds, so that all see the same disk; prints medians, the slowest, and the ratios of the sums.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "device/device.h"
#include "jobs/create_layer.h"
#include "jobs/open_device.h"
#include "os/queue.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_size_bytes = std::uint64_t{1} << 30;
constexpr std::uint64_t k_block_bytes = 4096;
constexpr unsigned k_pairs_per_round = 50;

template <typename T>
T must(Result<T> result) {
  if (result) return std::move(*result);
  fmt::print(stderr, "{}\n", result.error().text());
  std::exit(1);
}

void must(bool done, const char* what) {
  if (done) return;
  fmt::print(stderr, "{}: {}\n", what, std::strerror(errno));
  std::exit(1);
}

// One way of storing a block durably. Thread safety: none.
struct Contestant {
  std::string name;
  std::function<void(std::uint64_t at)> store;
  std::vector<double> us = {};
};

OpenedDevice layer(Queue& queue, const std::string& folder, const std::string& name, bool ring) {
  CreateSpec create;
  create.path = folder + "/" + name;
  create.base = folder + "/base.img";
  if (auto created = create_layer(queue, create); !created) must<int>(std::unexpected(created.error()));
  return must(open_device(queue, LayerSpec{create.path}, {.name = name, .ring = ring}));
}

std::function<void(std::uint64_t)> writer(Queue& queue, Device& device, std::span<const std::byte> block) {
  return [&queue, &device, block](std::uint64_t at) {
    const auto write = [&](Io& io) { return device.write(io, at, block, Durability::with_flush); };
    must(run_blocking(queue, write).ok(), "write");
    must(run_blocking(queue, [&](Io& io) { return device.flush(io); }).ok(), "flush");
  };
}

void report(const std::vector<Contestant>& all) {
  for (const Contestant& each : all) {
    std::vector<double> sorted = each.us;
    std::ranges::sort(sorted);
    const double sum = std::accumulate(sorted.begin(), sorted.end(), 0.0);
    fmt::print("{:<22} median {:7.1f} us   99 % {:8.1f} us   slowest {:8.1f} us   {:8.0f}/s\n", each.name,
               sorted[sorted.size() / 2], sorted[sorted.size() * 99 / 100], sorted.back(),
               1e6 * static_cast<double>(sorted.size()) / sum);
  }
  const auto sum = [](const Contestant& each) {
    return std::accumulate(each.us.begin(), each.us.end(), 0.0);
  };
  fmt::print("the ring is {:.2f} times as fast as two barriers, {:.2f} times as fast as a plain file\n",
             sum(all[2]) / sum(all[1]), sum(all[0]) / sum(all[1]));
}

int run(const std::string& parent, unsigned rounds) {
  const std::string folder = parent + "/oxbow-flush-bench." + std::to_string(::getpid());
  std::filesystem::create_directory(folder);
  const auto sparse = [&](const std::string& name) {
    const int fd = ::open((folder + "/" + name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    must(fd >= 0 && ::ftruncate(fd, k_size_bytes) == 0, name.c_str());
    return fd;
  };
  ::close(sparse("base.img"));
  const int file = sparse("file.img");
  Queue queue;
  OpenedDevice ring = layer(queue, folder, "ring.oxb", true);
  OpenedDevice barriers = layer(queue, folder, "barriers.oxb", false);
  const std::vector<std::byte> block(k_block_bytes, std::byte{0x5A});
  std::vector<Contestant> all{
      {"plain file",
       [&](std::uint64_t at) {
         must(::pwrite(file, block.data(), block.size(), static_cast<off_t>(at)) == k_block_bytes, "pwrite");
         must(::fdatasync(file) == 0, "fdatasync");
       }},
      {"layer, commit ring", writer(queue, *ring.device, block)},
      {"layer, two barriers", writer(queue, *barriers.device, block)}};
  std::vector<std::uint64_t> blocks(k_size_bytes / k_block_bytes);
  std::iota(blocks.begin(), blocks.end(), 0);
  std::ranges::shuffle(blocks, std::mt19937_64(1));
  for (unsigned round = 0; round < rounds; ++round) {
    for (Contestant& each : all) {
      for (unsigned i = 0; i < k_pairs_per_round; ++i) {
        const std::uint64_t at = blocks[(round * k_pairs_per_round + i) % blocks.size()] * k_block_bytes;
        const auto before = std::chrono::steady_clock::now();
        each.store(at);
        const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - before;
        if (round > 0) each.us.push_back(took.count());  // the first makes the ring ready
      }
    }
  }
  report(all);
  ::close(file);
  const bool closed = ring.device->close(queue).ok() && barriers.device->close(queue).ok();
  std::filesystem::remove_all(folder);
  return closed ? 0 : 1;
}

}  // namespace
}  // namespace oxbow

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    fmt::print(stderr, "usage: flush-bench DIRECTORY [ROUNDS]\n");
    return 2;
  }
  return oxbow::run(argv[1], argc == 3 ? static_cast<unsigned>(std::atoi(argv[2])) : 100);
}
