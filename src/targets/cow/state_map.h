// SPDX-License-Identifier: Apache-2.0
#pragma once

// The states of a layer's clusters in memory: two bits each, in leaves of 64 bytes (256 clusters) that come
// from an arena when a cluster of theirs is first to stop being absent. So memory is in proportion to what is
// touched, also where that is scattered. Each change of a cluster is one atomic operation, so a reader sees
// the old or the new state and never a third. Ownership of changes is the claims' business (claims.h); so is
// that nobody but a claim holder changes a cluster.
//
// The arena may lie in a live file, from which the next process takes the states over when this one is killed. It
// has a page's leaves, each with its owner, which is set last: a leaf that has one is whole.

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "formats/native/layout.h"
#include "os/mapping.h"
#include "oxbow/io_status.h"

namespace oxbow {

class LiveFile;

enum class ClusterState : std::uint8_t { absent = 0b00, zero = 0b01, data = 0b11 };

// Thread safety: adopt() before all else; the rest from any thread; install() and compose() of one page not at the same
// time as each other.
class StateMap {
 public:
  struct Run {
    ClusterState state;
    std::uint64_t count;
  };

  // For clusters [0, clusters), in the arena of `live` if there is one. Throws std::bad_alloc when the address space
  // is short.
  explicit StateMap(std::uint64_t clusters, std::shared_ptr<LiveFile> live = nullptr);

  // Takes the states over that the live file has. False when it is damaged.
  [[nodiscard]] bool adopt();

  [[nodiscard]] ClusterState state(std::uint64_t cluster) const noexcept;
  // The state of `cluster` and how many clusters from it on, at most `limit` (more than 0), share it.
  [[nodiscard]] Run run(std::uint64_t cluster, std::uint64_t limit) const noexcept;

  // Makes sure that [first, first + count) can be published; they stay as they are. Fails with ENOMEM, and then
  // whatever was published can still be.
  [[nodiscard]] IoStatus make_room(std::uint64_t first, std::uint64_t count) noexcept;
  // Gives [first, first + count), which have room, the state zero or data.
  void publish(std::uint64_t first, std::uint64_t count, ClusterState state) noexcept;

  // Takes over the words of a state page as they were read, but for leaves that it has already: those were adopted,
  // and are newer. Only before the page's clusters are used. Fails with ENOMEM, and then may be tried again.
  [[nodiscard]] IoStatus install(std::uint64_t page, const native::StatePage& from) noexcept;
  // Copies the words of a state page out.
  void compose(std::uint64_t page, native::StatePage& to) const noexcept;

  // The same leaf by leaf, for formats with pages of another size. copy_leaf() answers false, and leaves `to` as it is,
  // where there is none: all of its clusters are absent.
  [[nodiscard]] IoStatus install_leaf(std::uint64_t leaf, const native::LeafWords& from) noexcept;
  [[nodiscard]] bool copy_leaf(std::uint64_t leaf, native::LeafWords& to) const noexcept;
  // For canaries: as if it had none. Only before its clusters are used.
  void forget_leaf(std::uint64_t leaf) noexcept;
  // The leaves that there are, in order.
  [[nodiscard]] std::vector<std::uint64_t> used_leaves() const;

  // The state pages that have leaves, in order.
  [[nodiscard]] std::vector<std::uint64_t> pages_with_leaves() const;
  // Leaves in use, for statistics and tests.
  [[nodiscard]] std::uint64_t leaves() const noexcept { return leaves_.load(std::memory_order_relaxed); }

 private:
  struct alignas(64) Leaf {
    std::array<std::atomic<std::uint64_t>, native::k_words_per_leaf> words;
  };
  // Where the arena's leaf `index`, counted in the order of use, lies: in leaves from the arena's start.
  [[nodiscard]] static std::uint32_t place_of(std::uint64_t index) noexcept;
  [[nodiscard]] std::atomic<std::uint64_t>& owner_of(std::uint64_t index) const noexcept;
  [[nodiscard]] const Leaf* leaf_of(std::uint64_t leaf) const noexcept;
  // Makes it with these words, unless it is there.
  [[nodiscard]] IoStatus make_leaf(std::uint64_t leaf, const native::LeafWords& words) noexcept;
  [[nodiscard]] IoStatus grow_to(std::uint64_t index) noexcept;
  // Calls visit(word, mask of both bits of each cluster) for the words that hold [first, first + count).
  template <typename Visit>
  void for_words(std::uint64_t first, std::uint64_t count, Visit&& visit) noexcept;

  std::uint64_t leaf_count_;
  std::shared_ptr<LiveFile> live_;
  Mapping table_memory_;  // of the leaves' places in the arena; 0: no leaf, all absent
  Mapping arena_memory_;  // without a live file
  std::atomic<std::uint32_t>* table_;
  std::byte* arena_;  // of native::LivePage
  std::atomic<std::uint64_t> leaves_{0};
  std::mutex growth_;  // one new leaf at a time
};

}  // namespace oxbow
