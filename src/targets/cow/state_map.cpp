// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/state_map.h"

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

namespace oxbow {
namespace {

using native::k_clusters_per_leaf;
using native::k_leaves_per_page;
using native::k_words_per_leaf;

constexpr std::uint64_t k_clusters_per_word = 32;
constexpr std::uint64_t k_low_bits = 0x5555555555555555;

constexpr std::uint64_t pattern(ClusterState state) noexcept {
  return k_low_bits * static_cast<std::uint64_t>(state);
}

Mapping reserve(std::uint64_t bytes) {
  auto memory = Mapping::anonymous(bytes);
  if (!memory) throw std::bad_alloc();
  return std::move(*memory);
}

}  // namespace

StateMap::StateMap(std::uint64_t clusters)
    : leaf_count_((clusters + k_clusters_per_leaf - 1) / k_clusters_per_leaf),
      table_memory_(reserve(leaf_count_ * sizeof(std::atomic<std::uint32_t>))),
      arena_memory_(reserve((leaf_count_ + 1) * sizeof(Leaf))),
      table_(reinterpret_cast<std::atomic<std::uint32_t>*>(table_memory_.data())),
      arena_(reinterpret_cast<Leaf*>(arena_memory_.data())) {
  // Zeroed memory is what value-initialised atomics are, and writing it would take the memory that is to be
  // saved.
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free && sizeof(Leaf) == 64);
}

const StateMap::Leaf* StateMap::leaf_of(std::uint64_t leaf) const noexcept {
  const std::uint32_t number = table_[leaf].load(std::memory_order_acquire);
  return number == 0 ? nullptr : &arena_[number];
}

StateMap::Leaf& StateMap::make_leaf(std::uint64_t leaf) noexcept {
  std::uint32_t number = table_[leaf].load(std::memory_order_acquire);
  if (number != 0) return arena_[number];
  // A lock, so that threads which race for neighbouring clusters don't use two numbers: the arena has one per
  // leaf.
  const std::lock_guard lock(growth_);
  number = table_[leaf].load(std::memory_order_relaxed);
  if (number == 0) {
    number = next_leaf_.fetch_add(1, std::memory_order_relaxed);
    table_[leaf].store(number, std::memory_order_release);
  }
  return arena_[number];
}

ClusterState StateMap::state(std::uint64_t cluster) const noexcept { return run(cluster, 1).state; }

StateMap::Run StateMap::run(std::uint64_t cluster, std::uint64_t limit) const noexcept {
  Run result{ClusterState::absent, 0};
  while (result.count < limit) {
    const std::uint64_t at = cluster + result.count;
    const Leaf* leaf = leaf_of(at / k_clusters_per_leaf);
    const std::uint64_t in_leaf = at % k_clusters_per_leaf;
    std::uint64_t word = 0;
    std::uint64_t here = k_clusters_per_leaf - in_leaf;
    if (leaf != nullptr) {
      const std::uint64_t in_word = in_leaf % k_clusters_per_word;
      word = leaf->words[in_leaf / k_clusters_per_word].load(std::memory_order_acquire) >> (2 * in_word);
      here = k_clusters_per_word - in_word;
    }
    if (result.count == 0) result.state = static_cast<ClusterState>(word & 3);
    std::uint64_t same = result.state == ClusterState::absent ? here : 0;  // without a leaf
    if (leaf != nullptr)
      same = static_cast<std::uint64_t>(std::countr_zero(word ^ pattern(result.state))) / 2;
    result.count += std::min(same, here);
    if (same < here) break;
  }
  result.count = std::min(result.count, limit);
  return result;
}

template <typename Visit>
void StateMap::for_words(std::uint64_t first, std::uint64_t count, Visit&& visit) noexcept {
  while (count > 0) {
    Leaf& leaf = make_leaf(first / k_clusters_per_leaf);
    const std::uint64_t in_leaf = first % k_clusters_per_leaf;
    const std::uint64_t in_word = in_leaf % k_clusters_per_word;
    const std::uint64_t n = std::min(count, k_clusters_per_word - in_word);
    const std::uint64_t ones =
        n == k_clusters_per_word ? ~std::uint64_t{0} : (std::uint64_t{1} << (2 * n)) - 1;
    visit(leaf.words[in_leaf / k_clusters_per_word], ones << (2 * in_word));
    first += n;
    count -= n;
  }
}

void StateMap::publish(std::uint64_t first, std::uint64_t count, ClusterState state) noexcept {
  if (state == ClusterState::data) {
    for_words(first, count, [](std::atomic<std::uint64_t>& word, std::uint64_t mask) {
      word.fetch_or(mask, std::memory_order_acq_rel);
    });
    return;
  }
  // Absent becomes zero by the first operation, data by the second; neither touches the other's clusters.
  for_words(first, count, [](std::atomic<std::uint64_t>& word, std::uint64_t mask) {
    word.fetch_or(mask & k_low_bits, std::memory_order_acq_rel);
    word.fetch_and(~(mask & ~k_low_bits), std::memory_order_acq_rel);
  });
}

void StateMap::install(std::uint64_t page, const native::StatePage& from) noexcept {
  const std::uint64_t first = page * k_leaves_per_page;
  for (std::uint64_t i = 0; i < k_leaves_per_page && first + i < leaf_count_; ++i) {
    const native::LeafWords& words = from.leaves[i];
    if (std::ranges::all_of(words, [](std::uint64_t word) { return word == 0; })) continue;
    Leaf& leaf = make_leaf(first + i);
    for (std::size_t w = 0; w < k_words_per_leaf; ++w) {
      leaf.words[w].store(words[w], std::memory_order_release);
    }
  }
}

void StateMap::compose(std::uint64_t page, native::StatePage& to) const noexcept {
  const std::uint64_t first = page * k_leaves_per_page;
  for (std::uint64_t i = 0; i < k_leaves_per_page; ++i) {
    const Leaf* leaf = first + i < leaf_count_ ? leaf_of(first + i) : nullptr;
    for (std::size_t w = 0; w < k_words_per_leaf; ++w) {
      to.leaves[i][w] = leaf == nullptr ? 0 : leaf->words[w].load(std::memory_order_acquire);
    }
  }
}

}  // namespace oxbow
