// SPDX-License-Identifier: Apache-2.0
// What translation costs, without any I/O: locate and plan through chains of layers, and whole reads and writes
// of a RAM disk through the device. Layers lie in RAM stores, so that no system call is in the way.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "device/device.h"
#include "os/queue.h"
#include "stores/ram/ram_store.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/layer_file.h"
#include "targets/linear/linear_target.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_size_bytes = std::uint64_t{256} << 20;
constexpr std::uint64_t k_block_bytes = 4096;

template <typename T>
T must(Result<T> result) {
  if (!result) {
    std::fputs(result.error().text().c_str(), stderr);
    std::abort();
  }
  return std::move(*result);
}

void must(IoStatus status) {
  if (!status.ok()) std::abort();
}

std::shared_ptr<Target> ram_target(std::uint64_t size) {
  auto store = must(RamStore::create({.size_bytes = size}));
  return std::make_shared<LinearTarget>(store, "ram", Range{0, size}, true);
}

std::shared_ptr<CowTarget> layer_over(Queue& queue, std::shared_ptr<Target> base, std::uint8_t number) {
  LayerDescription description{.size_bytes = k_size_bytes, .max_size_bytes = k_size_bytes};
  description.uuid[0] = number;
  description.base.kind = native::BaseKind::raw;
  description.base.size = k_size_bytes;
  description.base_path = "base";
  const auto superblock = must(describe_layer(description));
  auto store = must(RamStore::create({.size_bytes = superblock.data_offset + k_size_bytes}));
  if (auto formatted = format_layer(queue, *store, description); !formatted) std::abort();
  return must(CowTarget::open(queue, store, std::move(base), {.writable = true}));
}

std::vector<std::uint64_t> random_blocks() {
  std::mt19937_64 random(1);
  std::vector<std::uint64_t> offsets(4096);
  for (std::uint64_t& each : offsets) each = random() % (k_size_bytes / k_block_bytes) * k_block_bytes;
  return offsets;
}

// All data lies in the base below `depth` layers, so each question goes all the way down.
void locate_through_chain(benchmark::State& state) {
  Queue queue;
  std::shared_ptr<Target> top = ram_target(k_size_bytes);
  for (std::int64_t i = 0; i < state.range(0); ++i)
    top = layer_over(queue, top, static_cast<std::uint8_t>(i + 1));
  const auto offsets = random_blocks();
  {
    // Brings the state pages in.
    Device device(top, {.name = "bench", .read_only = true}, queue);
    std::vector<std::byte> buffer(k_block_bytes);
    for (const std::uint64_t at : offsets) {
      must(run_blocking(queue, [&](Io& io) { return device.read(io, at, buffer); }));
    }
  }
  std::size_t next = 0;
  while (state.KeepRunning()) {
    Extents extents;
    const Step step = top->locate({offsets[next++ % offsets.size()], k_block_bytes}, extents);
    benchmark::DoNotOptimize(step);
    benchmark::DoNotOptimize(extents);
  }
}
BENCHMARK(locate_through_chain)->Arg(1)->Arg(4)->Arg(16);

// Overwrites of blocks that the top layer has: no claims, no fill-in.
void plan_and_commit_overwrite(benchmark::State& state) {
  Queue queue;
  std::shared_ptr<Target> top = ram_target(k_size_bytes);
  for (std::int64_t i = 0; i < state.range(0); ++i)
    top = layer_over(queue, top, static_cast<std::uint8_t>(i + 1));
  const auto offsets = random_blocks();
  {
    Device device(top, {.name = "bench"}, queue);
    const std::vector<std::byte> buffer(k_block_bytes, std::byte{1});
    for (const std::uint64_t at : offsets) {
      must(run_blocking(queue, [&](Io& io) { return device.write(io, at, buffer, Durability::with_flush); }));
    }
  }
  std::size_t next = 0;
  Plan plan;
  while (state.KeepRunning()) {
    const Step step = top->plan({offsets[next++ % offsets.size()], k_block_bytes}, {}, plan);
    benchmark::DoNotOptimize(step);
    plan.owner->commit(plan);
    plan.reset();
  }
}
BENCHMARK(plan_and_commit_overwrite)->Arg(1)->Arg(4)->Arg(16);

// Fresh blocks: claim, publish, release. Each pass over the device begins with a new layer.
void plan_and_commit_fresh(benchmark::State& state) {
  Queue queue;
  std::shared_ptr<CowTarget> top;
  std::uint64_t at = k_size_bytes;
  Plan plan;
  while (state.KeepRunning()) {
    if (at == k_size_bytes) {
      state.PauseTiming();
      top = layer_over(queue, ram_target(k_size_bytes), 1);
      Device device(top, {.name = "bench"}, queue);
      const std::vector<std::byte> buffer(1);
      for (at = 0; at < k_size_bytes; at += native::k_clusters_per_page * k_block_bytes) {
        must(run_blocking(queue,
                          [&](Io& io) { return device.write(io, at, buffer, Durability::with_flush); }));
      }
      at = 0;
      state.ResumeTiming();
    }
    const Step step = top->plan({at, k_block_bytes}, {}, plan);
    benchmark::DoNotOptimize(step);
    plan.owner->commit(plan);
    plan.reset();
    at += k_block_bytes;
  }
}
BENCHMARK(plan_and_commit_fresh);

void ram_device(benchmark::State& state, bool write) {
  Queue queue;
  Device device(ram_target(k_size_bytes), {.name = "bench"}, queue);
  std::vector<std::byte> buffer(k_block_bytes, std::byte{1});
  const auto offsets = random_blocks();
  struct Never : Io {
    explicit Never(Queue& owner) noexcept : Io(owner, [](Io&) noexcept { std::abort(); }) {}
  } io(queue);
  for (const std::uint64_t at : offsets) {
    must(run_blocking(queue,
                      [&](Io& each) { return device.write(each, at, buffer, Durability::with_flush); }));
  }
  std::size_t next = 0;
  while (state.KeepRunning()) {
    const std::uint64_t at = offsets[next++ % offsets.size()];
    const Progress progress =
        write ? device.write(io, at, buffer, Durability::with_flush) : device.read(io, at, buffer);
    if (!progress.is_done() || !progress.status().ok()) std::abort();
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) *
                          static_cast<std::int64_t>(k_block_bytes));
}
BENCHMARK_CAPTURE(ram_device, read_4k, false);
BENCHMARK_CAPTURE(ram_device, write_4k, true);

}  // namespace
}  // namespace oxbow
