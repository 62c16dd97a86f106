// SPDX-License-Identifier: Apache-2.0
// Writers on several threads, each with a queue of its own, in the same clusters: no byte of any of them is lost.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "device/device.h"
#include "formats/native/layout.h"
#include "jobs/create_layer.h"
#include "jobs/open_device.h"
#include "model/scene.h"
#include "os/fd.h"
#include "os/queue.h"
#include "sim/chooser.h"
#include "stores/ram/ram_store.h"
#include "support/effort.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/layer_file.h"

namespace oxbow::model {
namespace {

constexpr std::uint64_t k_cluster = 4096;
constexpr std::uint64_t k_rounds = 10'000;

// What `who` writes at the 8-byte word that starts at `offset`.
[[nodiscard]] std::uint64_t word_of(std::uint64_t who, std::uint64_t offset) {
  return sim::Random::mix((who << 48) + offset);
}

void fill(std::span<std::byte> out, std::uint64_t who, std::uint64_t offset) {
  for (std::size_t at = 0; at < out.size(); at += 8) {
    const std::uint64_t word = word_of(who, offset + at);
    std::memcpy(out.data() + at, &word, 8);
  }
}

[[nodiscard]] bool write(Queue& queue, Device& device, std::uint64_t at, std::span<const std::byte> bytes) {
  return run_blocking(queue, [&](Io& io) { return device.write(io, at, bytes, Durability::with_flush); })
      .ok();
}

// A device of `clusters` clusters over a base that holds 0x77 everywhere, with its own flush thread.
class Threads : public testing::Test {
 protected:
  void open(std::uint64_t clusters) {
    size_ = clusters * k_cluster;
    if (!created_) {
      UniqueFd base(::open(directory_.path("base").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
      ASSERT_TRUE(base.valid());
      const std::vector<char> bytes(1 << 20, '\x77');
      for (std::uint64_t at = 0; at < size_; at += bytes.size()) {
        const std::size_t length = std::min<std::uint64_t>(bytes.size(), size_ - at);
        ASSERT_EQ(::pwrite(base.get(), bytes.data(), length, static_cast<off_t>(at)),
                  static_cast<ssize_t>(length));
      }
      const auto made =
          create_layer(queue_, {.path = directory_.path("layer"), .base = directory_.path("base")});
      ASSERT_TRUE(made) << made.error().text();
      created_ = true;
    }
    auto opened = open_device(queue_, LayerSpec{.path = directory_.path("layer")}, {.name = "threads"});
    ASSERT_TRUE(opened) << opened.error().text();
    opened_ = std::move(*opened);
  }
  void reopen() {
    ASSERT_TRUE(opened_.device->close(queue_).ok());
    opened_ = {};
    open(size_ / k_cluster);
  }
  [[nodiscard]] Device& device() { return *opened_.device; }

  // Runs body(thread, queue) on `count` threads, and beside them one that flushes all the time.
  void run(std::size_t count, const std::function<void(std::size_t, Queue&)>& body) {
    std::atomic<bool> done{false};
    std::jthread flusher([&] {
      Queue queue;
      while (!done.load()) {
        if (!run_blocking(queue, [&](Io& io) { return device().flush(io); }).ok()) ++failures_;
      }
    });
    {
      std::vector<std::jthread> threads;
      for (std::size_t i = 0; i < count; ++i) {
        threads.emplace_back([&, i] {
          Queue queue;
          body(i, queue);
        });
      }
    }
    done.store(true);
    flusher.join();
    EXPECT_EQ(failures_.load(), 0);
  }

  // `parts` threads write a part each of one absent cluster after the other; another one discards and
  // writes elsewhere meanwhile. Then all parts are there, also after closing and opening.
  void write_parts(std::size_t parts) {
    constexpr std::uint64_t k_other = 64;  // clusters, for the discards
    open(k_rounds + k_other);
    const std::uint64_t part = k_cluster / parts;
    std::barrier start(static_cast<std::ptrdiff_t>(parts));
    run(parts + 1, [&](std::size_t thread, Queue& queue) {
      if (thread == parts) return discard_elsewhere(queue, k_rounds, k_other);
      std::vector<std::byte> bytes(part);
      for (std::uint64_t cluster = 0; cluster < k_rounds; ++cluster) {
        const std::uint64_t at = cluster * k_cluster + thread * part;
        fill(bytes, thread + 1, at);
        start.arrive_and_wait();
        if (!write(queue, device(), at, bytes)) ++failures_;
      }
    });
    expect_parts(parts);
    reopen();
    expect_parts(parts);
  }

  void expect_parts(std::size_t parts) {
    const std::uint64_t part = k_cluster / parts;
    std::vector<std::byte> found(k_cluster);
    std::vector<std::byte> expected(k_cluster);
    for (std::uint64_t cluster = 0; cluster < k_rounds; ++cluster) {
      const std::uint64_t at = cluster * k_cluster;
      ASSERT_TRUE(run_blocking(queue_, [&](Io& io) { return device().read(io, at, found); }).ok());
      for (std::size_t i = 0; i < parts; ++i) {
        fill(std::span(expected).subspan(i * part, part), i + 1, at + i * part);
      }
      ASSERT_TRUE(found == expected) << "cluster " << cluster;
    }
  }

  void discard_elsewhere(Queue& queue, std::uint64_t first, std::uint64_t count) {
    sim::Random random(7);
    std::vector<std::byte> bytes(k_cluster / 2);
    for (std::uint64_t i = 0; i < k_rounds / 4; ++i) {
      const std::uint64_t at = (first + random.below(count)) * k_cluster;
      const bool discard = random.chance(50);
      const bool ok =
          discard ? run_blocking(
                        queue,
                        [&](Io& io) { return device().discard(io, {at, k_cluster}, Durability::with_flush); })
                        .ok()
                  : write(queue, device(), at, bytes);
      if (!ok) ++failures_;
    }
  }

  Directory directory_;
  Queue queue_;
  OpenedDevice opened_;
  std::uint64_t size_ = 0;
  bool created_ = false;
  std::atomic<int> failures_{0};
};

TEST_F(Threads, HalvesOfAnAbsentClusterBothSurvive) { write_parts(2); }

TEST_F(Threads, QuartersOfAnAbsentClusterAllSurvive) { write_parts(4); }

// Three threads own every third piece of 1,000 bytes each: they share clusters, and no bytes. Each checks its own
// pieces all the time.
TEST_F(Threads, PiecesOfSharedClustersKeepWhatTheirOwnerWrote) {
  constexpr std::uint64_t k_piece = 1000;
  constexpr std::uint64_t k_clusters = 256;
  constexpr std::size_t k_owners = 3;
  const std::uint64_t seed = test::seed();
  const std::uint64_t count = test::repetitions(8'000, 200'000);
  open(k_clusters);
  const std::uint64_t pieces = size_ / k_piece;
  std::atomic<int> wrong{0};
  run(k_owners, [&](std::size_t owner, Queue& queue) {
    sim::Random random(sim::Random::mix(seed + owner));
    std::vector<std::vector<std::byte>> own(pieces / k_owners,
                                            std::vector<std::byte>(k_piece, std::byte{0x77}));
    std::vector<std::byte> bytes(k_piece);
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t number = random.below(own.size());
      const std::uint64_t at = (number * k_owners + owner) * k_piece;
      const std::uint64_t drawn = random.below(10);
      if (drawn < 4) {
        fill(own[number], random.next() & 0xFFFF, at);
        if (!write(queue, device(), at, own[number])) ++failures_;
      } else if (drawn < 5) {
        own[number].assign(k_piece, std::byte{0});
        const bool allocate = random.chance(50);
        if (!run_blocking(queue, [&](Io& io) {
               return device().zero(io, {at, k_piece}, allocate, Durability::with_flush);
             }).ok()) {
          ++failures_;
        }
      } else {
        if (!run_blocking(queue, [&](Io& io) { return device().read(io, at, bytes); }).ok()) ++failures_;
        if (bytes != own[number]) ++wrong;
      }
    }
  });
  EXPECT_EQ(wrong.load(), 0);
}

// Writes and discards of whole clusters, all on the same few: every word found is one that somebody put in that place.
TEST_F(Threads, OverlappingChangesLeaveNothingForeign) {
  constexpr std::uint64_t k_clusters = 4;
  const std::uint64_t seed = test::seed();
  const std::uint64_t rounds = test::repetitions(500, 10'000);
  constexpr std::size_t k_threads = 3;
  open(k_clusters);
  std::barrier turn(static_cast<std::ptrdiff_t>(k_threads));
  std::atomic<int> wrong{0};
  run(k_threads, [&](std::size_t thread, Queue& queue) {
    sim::Random random(sim::Random::mix(seed + thread));
    std::vector<std::byte> bytes(k_cluster);
    for (std::uint64_t round = 0; round < rounds; ++round) {
      const std::uint64_t at = random.below(k_clusters) * k_cluster;
      turn.arrive_and_wait();
      fill(bytes, thread + 1, at);
      const bool discard = random.chance(30);
      const bool ok =
          discard ? run_blocking(
                        queue,
                        [&](Io& io) { return device().discard(io, {at, k_cluster}, Durability::with_flush); })
                        .ok()
                  : write(queue, device(), at, bytes);
      if (!ok) ++failures_;
      turn.arrive_and_wait();
      if (thread != 0) continue;
      for (std::uint64_t cluster = 0; cluster < k_clusters; ++cluster) {
        const std::uint64_t place = cluster * k_cluster;
        if (!run_blocking(queue, [&](Io& io) { return device().read(io, place, bytes); }).ok()) ++failures_;
        // Overwrites of present data that overlap may mix; each word is still somebody's.
        for (std::size_t i = 0; i < k_cluster; i += 8) {
          std::uint64_t word = 0;
          std::memcpy(&word, bytes.data() + i, 8);
          const bool known = word == 0 || word == 0x7777777777777777U || word == word_of(1, place + i) ||
                             word == word_of(2, place + i) || word == word_of(3, place + i);
          if (!known) ++wrong;
        }
      }
    }
  });
  EXPECT_EQ(wrong.load(), 0);
}

// A layer without any I/O in the way: its session is begun, its pages are loaded and have room.
class Planners : public testing::Test {
 protected:
  void open(std::uint64_t clusters) {
    auto store = RamStore::create({.size_bytes = k_cluster});
    ASSERT_TRUE(store) << store.error().text();
    LayerDescription description;
    description.size_bytes = clusters * k_cluster;
    description.max_size_bytes = description.size_bytes;
    ASSERT_TRUE(format_layer(queue_, **store, description));
    auto target = CowTarget::open(queue_, *store, nullptr, {.writable = true});
    ASSERT_TRUE(target) << target.error().text();
    layer_ = *target;
    Device device(layer_, {.name = "planners"}, queue_);
    for (std::uint64_t first = 0; first < clusters; first += native::k_clusters_per_page) {
      const Range whole{first * k_cluster, k_cluster};
      ASSERT_TRUE(run_blocking(queue_, [&](Io& io) {
                    return device.discard(io, whole, Durability::with_flush);
                  }).ok());
    }
  }
  // Writes a part of `cluster`, but for the bytes. Returns whether it was fresh.
  bool change(std::uint64_t cluster) {
    Plan plan;
    const Range part{cluster * k_cluster + 512, 512};
    while (layer_->plan(part, {.operation = Operation::write}, plan).answer != Answer::ready) {
      std::this_thread::yield();
    }
    layer_->commit(plan);
    return !plan.claimed.empty();
  }

  Queue queue_;
  std::shared_ptr<CowTarget> layer_;
};

// Between the look at a cluster's state and the claim somebody else may have filled it. Each cluster must be found
// fresh by one of the planners, once.
TEST_F(Planners, FindAClusterFreshOnlyOnce) {
  const std::uint64_t clusters = test::repetitions(400'000, 4'000'000);
  open(clusters);
  std::vector<std::atomic<std::uint8_t>> fresh(clusters);
  const auto change_all = [&] {
    for (std::uint64_t cluster = 0; cluster < clusters; ++cluster) {
      if (change(cluster)) fresh[cluster].fetch_add(1);
    }
  };
  {
    std::jthread other(change_all);
    change_all();
  }
  std::uint64_t wrong = 0;
  for (const auto& each : fresh) wrong += each.load() == 1 ? 0U : 1U;
  EXPECT_EQ(wrong, 0U);
}

// A page is dirty after its words changed, and clean before they are copied: so a change that completed is in the
// pages of a flush that begins then, or in those of one before.
TEST_F(Planners, AreSeenByTheNextFlush) {
  const std::uint64_t clusters = test::repetitions(30'000, 200'000);
  open(clusters);
  std::vector<native::StatePage> written((clusters - 1) / native::k_clusters_per_page + 1);
  std::atomic<std::uint64_t> flushes{0};
  std::atomic<bool> done{false};
  std::jthread flusher([&] {
    Queue queue;
    while (!done.load()) {
      FlushPlan plan;
      plan.buffers = &queue.buffers();
      layer_->capture(plan);
      for (const FlushWrite& each : plan.rounds[1].writes) {
        native::StatePage page;
        std::memcpy(&page, each.data.data(), sizeof(page));
        written[page.index] = page;
      }
      layer_->flushed(plan, plan.status);
      flushes.fetch_add(1);
    }
  });
  std::uint64_t lost = 0;
  for (std::uint64_t cluster = 0; cluster < clusters && lost == 0; ++cluster) {
    (void)change(cluster);
    // One may have been under way; the one after it began later.
    for (const std::uint64_t seen = flushes.load(); flushes.load() < seen + 2;) std::this_thread::yield();
    const std::uint64_t in_page = cluster % native::k_clusters_per_page;
    const auto& words = written[cluster / native::k_clusters_per_page].leaves[in_page / 256];
    if ((words[in_page % 256 / 32] >> (2 * (in_page % 32)) & 3) != 3) ++lost;
  }
  done.store(true);
  flusher.join();
  EXPECT_EQ(lost, 0U);
}

}  // namespace
}  // namespace oxbow::model
