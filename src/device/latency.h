// SPDX-License-Identifier: Apache-2.0
#pragma once

// How long requests took, in buckets that double: from their arrival to when their replies were handed to the
// kernel. Counting costs a few nanoseconds; the clock is read by who counts, once for many requests.

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace oxbow {

// Nanoseconds of the steady clock.
[[nodiscard]] inline std::uint64_t steady_ns() noexcept {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(since).count());
}

enum class RequestKind : std::uint8_t {
  read,
  write,
  change,  // zeroes and discards
  flush,
};
inline constexpr std::size_t k_request_kinds = 4;

// Bucket i holds what took at most 2^i µs and more than the bucket before; the last one but one ends at 2^24 µs
// (16.8 s), the last one has no end.
inline constexpr std::size_t k_latency_buckets = 26;
[[nodiscard]] constexpr std::size_t latency_bucket(std::uint64_t ns) noexcept {
  const std::uint64_t us = ns / 1000 + (ns % 1000 != 0 ? 1 : 0);
  if (us <= 1) return 0;
  return std::min(static_cast<std::size_t>(std::bit_width(us - 1)), k_latency_buckets - 1);
}
// The end of a bucket in microseconds; not of the last one.
[[nodiscard]] constexpr std::uint64_t latency_bound_us(std::size_t bucket) noexcept {
  return std::uint64_t{1} << bucket;
}

// Sums since the beginning. Thread safety: a value.
struct LatencySnapshot {
  struct Kind {
    std::array<std::uint64_t, k_latency_buckets> buckets{};
    std::uint64_t total_ns = 0;

    [[nodiscard]] std::uint64_t count() const noexcept;
    // The end, in microseconds, of the bucket that the `part` quantile (0 to 1) is in; 0 when nothing was counted,
    // and the last bucket's beginning for what is in there.
    [[nodiscard]] std::uint64_t quantile_us(double part) const noexcept;
  };
  std::array<Kind, k_request_kinds> kinds{};

  [[nodiscard]] const Kind& operator[](RequestKind kind) const noexcept {
    return kinds[static_cast<std::size_t>(kind)];
  }
};

// The latencies that one thread counts. Thread safety: add() from one thread at a time, snapshot() from any; a
// snapshot is not of one instant.
class Latencies {
 public:
  void add(RequestKind kind, std::uint64_t ns) noexcept {
    Kind& counted = kinds_[static_cast<std::size_t>(kind)];
    increase(counted.buckets[latency_bucket(ns)], 1);
    increase(counted.total_ns, ns);
  }
  [[nodiscard]] LatencySnapshot snapshot() const noexcept;

 private:
  // One writer: no locked instruction is needed.
  static void increase(std::atomic<std::uint64_t>& value, std::uint64_t by) noexcept {
    value.store(value.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }
  struct Kind {
    std::array<std::atomic<std::uint64_t>, k_latency_buckets> buckets{};
    std::atomic<std::uint64_t> total_ns{0};
  };
  std::array<Kind, k_request_kinds> kinds_{};
};

// The latencies that many threads count, spread over shards so that queues don't share cache lines.
// Thread safety: any thread; a snapshot is not of one instant.
class SharedLatencies {
 public:
  void add(unsigned shard, RequestKind kind, std::uint64_t ns) noexcept {
    Kind& counted = shards_[shard % k_shards].kinds[static_cast<std::size_t>(kind)];
    counted.buckets[latency_bucket(ns)].fetch_add(1, std::memory_order_relaxed);
    counted.total_ns.fetch_add(ns, std::memory_order_relaxed);
  }
  [[nodiscard]] LatencySnapshot snapshot() const noexcept;

 private:
  static constexpr std::size_t k_shards = 16;
  struct Kind {
    std::array<std::atomic<std::uint64_t>, k_latency_buckets> buckets{};
    std::atomic<std::uint64_t> total_ns{0};
  };
  struct alignas(64) Shard {
    std::array<Kind, k_request_kinds> kinds{};
  };
  std::array<Shard, k_shards> shards_{};
};

}  // namespace oxbow
