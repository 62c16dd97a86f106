// SPDX-License-Identifier: Apache-2.0
#pragma once

// The states of a layer's clusters in memory: two bits each, in leaves of 64 bytes (256 clusters) that come
// from an arena when a cluster of theirs first stops being absent. So memory is in proportion to what is
// touched, also where that is scattered. Each change of a cluster is one atomic operation, so a reader sees
// the old or the new state and never a third. Ownership of changes is the claims' business (claims.h); so is
// that nobody but a claim holder changes a cluster.

#include <atomic>
#include <cstdint>
#include <mutex>

#include "formats/native/layout.h"
#include "os/mapping.h"

namespace oxbow {

enum class ClusterState : std::uint8_t { absent = 0b00, zero = 0b01, data = 0b11 };

// Thread safety: from any thread; install() and compose() of one page not at the same time as each other.
class StateMap {
 public:
  struct Run {
    ClusterState state;
    std::uint64_t count;
  };

  // For clusters [0, clusters). Throws std::bad_alloc when the address space is short.
  explicit StateMap(std::uint64_t clusters);

  [[nodiscard]] ClusterState state(std::uint64_t cluster) const noexcept;
  // The state of `cluster` and how many clusters from it on, at most `limit` (more than 0), share it.
  [[nodiscard]] Run run(std::uint64_t cluster, std::uint64_t limit) const noexcept;

  // Gives [first, first + count) the state zero or data.
  void publish(std::uint64_t first, std::uint64_t count, ClusterState state) noexcept;

  // Takes over the words of a state page as they were read. Only before the page's clusters are used.
  void install(std::uint64_t page, const native::StatePage& from) noexcept;
  // Copies the words of a state page out.
  void compose(std::uint64_t page, native::StatePage& to) const noexcept;

  // Leaves in use, for statistics and tests.
  [[nodiscard]] std::uint64_t leaves() const noexcept {
    return next_leaf_.load(std::memory_order_relaxed) - 1;
  }

 private:
  struct alignas(64) Leaf {
    std::array<std::atomic<std::uint64_t>, native::k_words_per_leaf> words;
  };
  [[nodiscard]] const Leaf* leaf_of(std::uint64_t leaf) const noexcept;
  [[nodiscard]] Leaf& make_leaf(std::uint64_t leaf) noexcept;
  // Calls visit(word, mask of both bits of each cluster) for the words that hold [first, first + count).
  template <typename Visit>
  void for_words(std::uint64_t first, std::uint64_t count, Visit&& visit) noexcept;

  std::uint64_t leaf_count_;
  Mapping table_memory_;  // of leaf numbers; 0: no leaf, all absent
  Mapping arena_memory_;  // of leaves; number 0 is never used
  std::atomic<std::uint32_t>* table_;
  Leaf* arena_;
  std::atomic<std::uint32_t> next_leaf_{1};
  std::mutex growth_;  // one new leaf at a time
};

}  // namespace oxbow
