// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace oxbow {

enum class Counter : std::uint8_t {
  reads,
  read_bytes,
  writes,
  written_bytes,
  zeroes,
  zeroed_bytes,
  discards,
  discarded_bytes,
  flushes,       // as asked for by clients
  flush_rounds,  // carried out; one may serve many
  filled_bytes,  // copied from below to complete partly written clusters
  stored_bytes,  // of data written to stores: what clients wrote, and what completes partly written clusters
  metadata_bytes,  // written to stores to find the data again
  waits,           // requests that waited for another's claim
  errors,          // requests that failed
  own_reads,       // pieces that were read from the device's own store
  below_reads,     // and from what is below it, also to complete what is written
};
inline constexpr std::size_t k_counters = static_cast<std::size_t>(Counter::below_reads) + 1;

// Which of them counts a read from `layer` of a chain.
[[nodiscard]] constexpr Counter reads_from(std::uint8_t layer) noexcept {
  return layer == 0 ? Counter::own_reads : Counter::below_reads;
}

// Sums since the device was opened; index with static_cast<std::size_t>(Counter::…).
struct StatisticsSnapshot {
  std::array<std::uint64_t, k_counters> values{};
  [[nodiscard]] std::uint64_t operator[](Counter counter) const noexcept {
    return values[static_cast<std::size_t>(counter)];
  }
};

// A device's counters, spread over shards so that queues don't share cache lines.
// Thread safety: add() and snapshot() from any thread; a snapshot is not of one instant.
class Statistics {
 public:
  void add(unsigned shard, Counter counter, std::uint64_t amount = 1) noexcept {
    shards_[shard % k_shards].values[static_cast<std::size_t>(counter)].fetch_add(amount,
                                                                                  std::memory_order_relaxed);
  }
  [[nodiscard]] StatisticsSnapshot snapshot() const noexcept {
    StatisticsSnapshot sum;
    for (const Shard& shard : shards_) {
      for (std::size_t i = 0; i < k_counters; ++i) {
        sum.values[i] += shard.values[i].load(std::memory_order_relaxed);
      }
    }
    return sum;
  }

 private:
  static constexpr std::size_t k_shards = 16;
  struct alignas(64) Shard {
    std::array<std::atomic<std::uint64_t>, k_counters> values{};
  };
  std::array<Shard, k_shards> shards_{};
};

}  // namespace oxbow
