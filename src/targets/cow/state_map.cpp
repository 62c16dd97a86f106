// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/state_map.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <new>
#include <utility>

#include "formats/native/codec.h"
#include "formats/native/live_layout.h"
#include "os/canary.h"
#include "targets/cow/live_file.h"

namespace oxbow {
namespace {

using native::k_clusters_per_leaf;
using native::k_leaves_per_live_page;
using native::k_leaves_per_page;
using native::k_live_page_bytes;
using native::k_words_per_leaf;
using native::LivePage;

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

// Of the arena for so many leaves. Places in it have 32 bits, so more than 2^32 leaves, 256 GiB, can't be in use.
std::uint64_t arena_bytes(std::uint64_t leaves) noexcept {
  constexpr std::uint64_t k_most_pages =
      (std::uint64_t{1} << 32) / (k_live_page_bytes / sizeof(native::LeafWords));
  const std::uint64_t pages = (leaves + k_leaves_per_live_page - 1) / k_leaves_per_live_page;
  return std::min(pages, k_most_pages) * k_live_page_bytes;
}

}  // namespace

StateMap::StateMap(std::uint64_t clusters, std::shared_ptr<LiveFile> live)
    : leaf_count_((clusters + k_clusters_per_leaf - 1) / k_clusters_per_leaf),
      live_(std::move(live)),
      table_memory_(reserve(leaf_count_ * sizeof(std::atomic<std::uint32_t>))),
      table_(reinterpret_cast<std::atomic<std::uint32_t>*>(table_memory_.data())) {
  // Zeroed memory is what value-initialised atomics are, and writing it would take the memory that is to be
  // saved.
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free && sizeof(Leaf) == sizeof(native::LeafWords));
  const bool in_private = live_ == nullptr || canary(Canary::live_leaves_private);
  if (in_private) arena_memory_ = reserve(arena_bytes(leaf_count_));
  if (live_ != nullptr && !live_->map_arena(arena_bytes(leaf_count_)).ok()) throw std::bad_alloc();
  arena_ = in_private ? arena_memory_.data() : live_->arena();
}

std::uint32_t StateMap::place_of(std::uint64_t index) noexcept {
  constexpr std::uint64_t k_places = k_live_page_bytes / sizeof(Leaf);
  constexpr std::uint64_t k_first = offsetof(LivePage, leaves) / sizeof(Leaf);
  return static_cast<std::uint32_t>((index / k_leaves_per_live_page * k_places) + k_first +
                                    (index % k_leaves_per_live_page));
}

std::atomic<std::uint64_t>& StateMap::owner_of(std::uint64_t index) const noexcept {
  auto* owners = reinterpret_cast<std::atomic<std::uint64_t>*>(
      arena_ + (index / k_leaves_per_live_page * k_live_page_bytes));
  return owners[index % k_leaves_per_live_page];
}

const StateMap::Leaf* StateMap::leaf_of(std::uint64_t leaf) const noexcept {
  const std::uint32_t place = table_[leaf].load(std::memory_order_acquire);
  return place == 0 ? nullptr : reinterpret_cast<const Leaf*>(arena_) + place;
}

// Memory for the arena's leaf `index`.
IoStatus StateMap::grow_to(std::uint64_t index) noexcept {
  const std::uint64_t needed = (index / k_leaves_per_live_page + 1) * k_live_page_bytes;
  if (live_ == nullptr) return needed <= arena_memory_.size() ? IoStatus{} : IoStatus::error(ENOMEM);
  return needed <= live_->arena_bytes() ? IoStatus{} : live_->grow_arena();
}

IoStatus StateMap::make_leaf(std::uint64_t leaf, const native::LeafWords& words) noexcept {
  // A lock, so that threads which race for neighbouring clusters don't use two places.
  const std::lock_guard lock(growth_);
  if (table_[leaf].load(std::memory_order_relaxed) != 0) return {};
  const std::uint64_t index = leaves_.load(std::memory_order_relaxed);
  if (const IoStatus grown = grow_to(index); !grown.ok()) return grown;
  const std::uint32_t place = place_of(index);
  Leaf& made = reinterpret_cast<Leaf*>(arena_)[place];
  // Whole before it has an owner; and it has one before anybody can change it.
  if (canary(Canary::live_leaf_owned_early)) {
    owner_of(index).store(leaf + 1, std::memory_order_release);
    canary_moment();
  }
  for (std::size_t w = 0; w < k_words_per_leaf; ++w) {
    made.words[w].store(words[w], std::memory_order_relaxed);
  }
  canary_moment();
  owner_of(index).store(leaf + 1, std::memory_order_release);
  leaves_.store(index + 1, std::memory_order_relaxed);
  table_[leaf].store(place, std::memory_order_release);
  return {};
}

bool StateMap::adopt() {
  const std::uint64_t length = live_->arena_bytes();
  if (length > arena_bytes(leaf_count_)) return false;
  const std::uint64_t most = length / k_live_page_bytes * k_leaves_per_live_page;
  bool ended = false;
  for (std::uint64_t index = 0; index < most; ++index) {
    const std::uint64_t owner = owner_of(index).load(std::memory_order_acquire);
    ended = ended || owner == 0;
    if (ended && owner != 0) return false;  // they are used in order
    if (ended) continue;
    if (owner > leaf_count_ || table_[owner - 1].load(std::memory_order_relaxed) != 0) return false;
    const std::uint32_t place = place_of(index);
    native::LeafWords words{};
    for (std::size_t w = 0; w < k_words_per_leaf; ++w) {
      words[w] = reinterpret_cast<const Leaf*>(arena_)[place].words[w].load(std::memory_order_relaxed);
    }
    if (native::has_invalid_state(words)) return false;
    table_[owner - 1].store(place, std::memory_order_release);
    leaves_.store(index + 1, std::memory_order_relaxed);
  }
  return true;
}

std::vector<std::uint64_t> StateMap::used_leaves() const {
  std::vector<std::uint64_t> numbers;
  for (std::uint64_t index = 0; index < leaves(); ++index)
    numbers.push_back(owner_of(index).load(std::memory_order_relaxed) - 1);
  std::ranges::sort(numbers);
  return numbers;
}

std::vector<std::uint64_t> StateMap::pages_with_leaves() const {
  std::vector<std::uint64_t> pages = used_leaves();
  for (std::uint64_t& each : pages) each /= k_leaves_per_page;
  pages.erase(std::ranges::unique(pages).begin(), pages.end());
  return pages;
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
    const std::uint32_t place = table_[first / k_clusters_per_leaf].load(std::memory_order_acquire);
    assert(place != 0);
    Leaf& leaf = reinterpret_cast<Leaf*>(arena_)[place];
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

IoStatus StateMap::make_room(std::uint64_t first, std::uint64_t count) noexcept {
  const std::uint64_t last = (first + count - 1) / k_clusters_per_leaf;
  for (std::uint64_t leaf = first / k_clusters_per_leaf; leaf <= last; ++leaf) {
    if (table_[leaf].load(std::memory_order_acquire) != 0) continue;
    if (const IoStatus made = make_leaf(leaf, {}); !made.ok()) return made;
  }
  return {};
}

IoStatus StateMap::install(std::uint64_t page, const native::StatePage& from) noexcept {
  const std::uint64_t first = page * k_leaves_per_page;
  for (std::uint64_t i = 0; i < k_leaves_per_page && first + i < leaf_count_; ++i) {
    const native::LeafWords& words = from.leaves[i];
    if (std::ranges::all_of(words, [](std::uint64_t word) { return word == 0; })) continue;
    if (canary(Canary::live_leaf_overwritten)) forget_leaf(first + i);
    if (const IoStatus made = make_leaf(first + i, words); !made.ok()) return made;
  }
  return {};
}

IoStatus StateMap::install_leaf(std::uint64_t leaf, const native::LeafWords& from) noexcept {
  return make_leaf(leaf, from);
}

void StateMap::forget_leaf(std::uint64_t leaf) noexcept { table_[leaf].store(0, std::memory_order_relaxed); }

bool StateMap::copy_leaf(std::uint64_t leaf, native::LeafWords& to) const noexcept {
  const Leaf* const from = leaf < leaf_count_ ? leaf_of(leaf) : nullptr;
  if (from == nullptr) return false;
  for (std::size_t w = 0; w < k_words_per_leaf; ++w) to[w] = from->words[w].load(std::memory_order_acquire);
  return true;
}

void StateMap::compose(std::uint64_t page, native::StatePage& to) const noexcept {
  const std::uint64_t first = page * k_leaves_per_page;
  for (std::uint64_t i = 0; i < k_leaves_per_page; ++i) {
    if (!copy_leaf(first + i, to.leaves[i])) to.leaves[i] = {};
  }
}

}  // namespace oxbow
