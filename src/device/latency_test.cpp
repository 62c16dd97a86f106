// SPDX-License-Identifier: Apache-2.0
#include "device/latency.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

namespace oxbow {
namespace {

TEST(Latency, BucketsDoubleFromAMicrosecond) {
  EXPECT_EQ(latency_bucket(0), 0U);
  EXPECT_EQ(latency_bucket(1000), 0U);
  EXPECT_EQ(latency_bucket(1001), 1U);
  EXPECT_EQ(latency_bucket(2000), 1U);
  EXPECT_EQ(latency_bucket(2001), 2U);
  for (std::size_t i = 1; i + 1 < k_latency_buckets; ++i) {
    const std::uint64_t end_ns = latency_bound_us(i) * 1000;
    EXPECT_EQ(latency_bucket(end_ns), i);
    EXPECT_EQ(latency_bucket(end_ns + 1), i + 1);
  }
  EXPECT_EQ(latency_bound_us(k_latency_buckets - 2), 16'777'216U);
  EXPECT_EQ(latency_bucket(~std::uint64_t{0}), k_latency_buckets - 1);
}

TEST(Latency, CountsByKind) {
  Latencies latencies;
  latencies.add(RequestKind::read, 500);
  latencies.add(RequestKind::read, 3'500);
  latencies.add(RequestKind::flush, 20'000'000'000);
  const LatencySnapshot sum = latencies.snapshot();
  EXPECT_EQ(sum[RequestKind::read].count(), 2U);
  EXPECT_EQ(sum[RequestKind::read].total_ns, 4'000U);
  EXPECT_EQ(sum[RequestKind::read].buckets[0], 1U);
  EXPECT_EQ(sum[RequestKind::read].buckets[2], 1U);
  EXPECT_EQ(sum[RequestKind::write].count(), 0U);
  EXPECT_EQ(sum[RequestKind::flush].buckets.back(), 1U);
}

TEST(Latency, Quantiles) {
  LatencySnapshot::Kind kind;
  EXPECT_EQ(kind.quantile_us(0.5), 0U);
  kind.buckets[3] = 99;
  kind.buckets[10] = 1;
  EXPECT_EQ(kind.quantile_us(0), 8U);
  EXPECT_EQ(kind.quantile_us(0.5), 8U);
  EXPECT_EQ(kind.quantile_us(0.99), 8U);
  EXPECT_EQ(kind.quantile_us(0.999), 1024U);
  kind.buckets = {};
  kind.buckets.back() = 1;
  EXPECT_EQ(kind.quantile_us(0.5), 16'777'216U);
}

TEST(Latency, ManyThreadsLoseNothing) {
  const auto latencies = std::make_unique<SharedLatencies>();
  std::vector<std::thread> threads;
  for (unsigned shard = 0; shard < 4; ++shard) {
    // Two threads on each of two shards.
    threads.emplace_back([&, shard] {
      for (int i = 0; i < 10'000; ++i) latencies->add(shard / 2, RequestKind::write, 1'500);
    });
  }
  for (std::thread& thread : threads) thread.join();
  const LatencySnapshot sum = latencies->snapshot();
  EXPECT_EQ(sum[RequestKind::write].buckets[1], 40'000U);
  EXPECT_EQ(sum[RequestKind::write].total_ns, 60'000'000U);
}

}  // namespace
}  // namespace oxbow
