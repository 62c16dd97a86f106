// SPDX-License-Identifier: Apache-2.0
#pragma once

// The place for small flushes: a log at the head of the layer's file, written in order from its start, one durable
// write for each flush (docs/durability.md, "The commit ring").
//
//   - Records are alive until a full flush that began after them has completed; then the next one goes to the start
//     again. So the room is never reused before, and a scan from the start finds every record that is alive.
//   - Sequence numbers never restart. A state page says up to which record it holds what the records say; those are not
//     applied to it again.
//   - While records are alive, overwriting in place is not enough: a replay would bring the recorded bytes back. Then
//     every flush and FUA write is a record or a full flush.

#include <cstdint>
#include <memory>

#include "formats/native/layout.h"
#include "stores/store.h"

namespace oxbow {

// Where the next record goes, and which are alive. Does no I/O. Thread safety: on() from any thread;
// the rest from the flush worker alone, and while a layer is opened and closed.
class CommitRing {
 public:
  // When room is made ready for fast writes, and how much: at first, at a time, and at most. A layer that is only used
  // for a moment doesn't take it.
  struct Growth {
    std::uint32_t small_flushes = 16;  // that were full ones, since the opening
    std::uint64_t first_bytes = 4 << 20;
    std::uint64_t step_bytes = 1 << 20;
    std::uint64_t most_bytes = native::k_ring_bytes;
  };

  // `store` writes records; null switches the ring off. `ready_bytes` of it have been written before.
  CommitRing(std::shared_ptr<Store> store, Growth growth, std::uint64_t ready_bytes) noexcept
      : store_(std::move(store)), growth_(growth), ready_(ready_bytes) {}

  [[nodiscard]] bool on() const noexcept { return store_ != nullptr; }
  [[nodiscard]] Store& store() const noexcept { return *store_; }
  // Whether a record of so many bytes has its place. When not, the ring grows with the next chore.
  [[nodiscard]] bool has_place(std::uint64_t bytes) noexcept;
  // Relative to the ring's start.
  [[nodiscard]] std::uint64_t position() const noexcept { return position_; }

  // Of the last record that was begun.
  [[nodiscard]] std::uint64_t sequence() const noexcept { return sequence_; }
  // The last record that the last completed full flush covers.
  [[nodiscard]] std::uint64_t covered() const noexcept { return covered_; }
  // Whether records may be replayed when the layer is opened next.
  [[nodiscard]] bool alive() const noexcept { return alive_; }

  // Returns the number of the record that is going to be written.
  [[nodiscard]] std::uint64_t begin_record() noexcept {
    alive_ = true;
    return ++sequence_;
  }
  void appended(std::uint64_t bytes) noexcept { position_ += bytes; }
  // The number of the last record that there ever was, and of the last that pages cover; before the first is begun.
  void continue_after(std::uint64_t sequence, std::uint64_t covered) noexcept {
    sequence_ = sequence;
    covered_ = covered;
  }
  // There are records that a replay has just applied.
  void replayed() noexcept { alive_ = true; }

  void full_flush_begins() noexcept { covering_ = sequence_; }
  // `would_fit`: what it made durable was little enough for a record.
  void full_flush_done(bool would_fit) noexcept;

  // The part of the ring that is to be made ready next; empty when there is none.
  [[nodiscard]] Range unready() const noexcept;
  void made_ready(Range part) noexcept { ready_ = part.end(); }
  // There is no room for more.
  void stop_growing() noexcept { growth_.most_bytes = ready_; }

 private:
  std::shared_ptr<Store> store_;
  Growth growth_;
  std::uint64_t ready_;
  std::uint64_t wanted_ = 0;
  std::uint64_t position_ = 0;
  std::uint64_t sequence_ = 0;
  std::uint64_t covered_ = 0;
  std::uint64_t covering_ = 0;
  std::uint32_t small_flushes_ = 0;
  bool alive_ = false;
};

}  // namespace oxbow
