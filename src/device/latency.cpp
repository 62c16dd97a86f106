// SPDX-License-Identifier: Apache-2.0
#include "device/latency.h"

#include <cmath>
#include <numeric>

namespace oxbow {
namespace {

template <typename Kinds>
void add_to(LatencySnapshot& sum, const Kinds& kinds) noexcept {
  for (std::size_t kind = 0; kind < k_request_kinds; ++kind) {
    LatencySnapshot::Kind& to = sum.kinds[kind];
    for (std::size_t i = 0; i < k_latency_buckets; ++i) {
      to.buckets[i] += kinds[kind].buckets[i].load(std::memory_order_relaxed);
    }
    to.total_ns += kinds[kind].total_ns.load(std::memory_order_relaxed);
  }
}

}  // namespace

std::uint64_t LatencySnapshot::Kind::count() const noexcept {
  return std::accumulate(buckets.begin(), buckets.end(), std::uint64_t{0});
}

std::uint64_t LatencySnapshot::Kind::quantile_us(double part) const noexcept {
  const std::uint64_t all = count();
  if (all == 0) return 0;
  const double wanted = std::ceil(part * static_cast<double>(all));
  const auto rank = std::clamp<std::uint64_t>(static_cast<std::uint64_t>(wanted), 1, all);
  std::uint64_t passed = 0;
  for (std::size_t i = 0; i + 1 < k_latency_buckets; ++i) {
    passed += buckets[i];
    if (passed >= rank) return latency_bound_us(i);
  }
  return latency_bound_us(k_latency_buckets - 2);
}

LatencySnapshot Latencies::snapshot() const noexcept {
  LatencySnapshot sum;
  add_to(sum, kinds_);
  return sum;
}

LatencySnapshot SharedLatencies::snapshot() const noexcept {
  LatencySnapshot sum;
  for (const Shard& shard : shards_) add_to(sum, shard.kinds);
  return sum;
}

}  // namespace oxbow
