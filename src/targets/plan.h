// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "os/buffer_pool.h"
#include "oxbow/range.h"
#include "stores/store.h"

namespace oxbow {

class Target;
class Plan;

enum class Answer : std::uint8_t {
  ready,    // the first `length` bytes are answered
  busy,     // someone else has a claim on the first byte: wait until `key` of `owner` is free, ask again
  prepare,  // `owner` needs preparation `key` to be carried out first; then ask again
  failed,   // the first byte cannot be had; `key` is the errno value
};

// The answer to locate and plan: how much of the range, from its start. `length` is more than 0 when ready,
// else 0; an answer may be a prefix and callers loop. Thread safety: a value.
struct Step {
  std::uint64_t length = 0;
  Answer answer = Answer::ready;
  std::uint64_t key = 0;
  Target* owner = nullptr;

  [[nodiscard]] static Step ready(std::uint64_t length) noexcept {
    return {length, Answer::ready, 0, nullptr};
  }
  // Who waits or prepares changes what a const answer only looks at.
  [[nodiscard]] static Step prepare(const Target& owner, std::uint64_t key) noexcept {
    return {0, Answer::prepare, key,
            const_cast<Target*>(&owner)};  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  }
  [[nodiscard]] static Step busy(Target& owner, std::uint64_t key) noexcept {
    return {0, Answer::busy, key, &owner};
  }
  [[nodiscard]] static Step failed(int error_number) noexcept {
    return {0, Answer::failed, static_cast<std::uint64_t>(error_number), nullptr};
  }
};

enum class Operation : std::uint8_t { write, zero, discard };

// What a request wants to do to a range.
struct Change {
  Operation operation = Operation::write;
  bool durable = false;   // FUA
  bool allocate = false;  // zero: keep room (NO_HOLE)
};

enum class Source : std::uint8_t { payload, zeros };

// One gathered write of head + body + tail bytes to `store` at byte `at`. The body is the planned range; head
// and tail, which complete partly covered clusters, are filled in from below. Zeros without head and tail are
// left to Store::zero; with them the body is at most 1 MiB.
struct Move {
  Store* store = nullptr;
  std::uint64_t at = 0;  // of the head
  std::uint64_t body = 0;
  std::uint32_t head = 0;
  std::uint32_t tail = 0;
  Source from = Source::payload;
  bool allocate = false;         // zeros: with room
  Target* head_below = nullptr;  // what the head is read from, at head_from; null: zeros
  Target* tail_below = nullptr;
  std::uint64_t head_from = 0;
  std::uint64_t tail_from = 0;

  [[nodiscard]] std::uint64_t length() const noexcept { return head + body + tail; }
};

// Clusters [first, first + count) of the target that planned, to be published by commit and released by
// ~Plan.
struct ClusterRun {
  std::uint64_t first;
  std::uint64_t count;
};

// What has to be done, in this order, for a prefix of a change: read the fills, carry out the move, commit
// (which publishes), punch what is no longer needed; then the plan is destroyed, which drops its claims. A
// plan that is destroyed before commit has changed nothing. Fixed in size; owned by the device's request.
// Thread safety: one thread at a time.
class Plan {
 public:
  Plan() noexcept = default;
  ~Plan() { reset(); }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  Plan(Plan&&) = delete;
  Plan& operator=(Plan&&) = delete;

  // Gives the claims back, once; what else is in the plan stays.
  void drop_claims() noexcept;
  // Drops the claims and empties the plan, for the next round.
  void reset() noexcept;

  Target* owner = nullptr;  // who planned, commits and holds the claims; null when there is nothing to do
  bool has_move = false;
  Move move;
  // With Change::durable: a durable write of the move makes the change durable; else the request has to join
  // a flush that captures after the commit.
  bool durable_alone = false;
  Fixed<ClusterRun, 16> claimed;
  ClusterRun moving{0, 0};   // clusters that the move writes to, also without a claim
  bool claims_held = false;  // set by the owner together with `claimed` or `moving`
  std::uint8_t publish = 0;  // what commit makes of the claimed clusters; the owner's business
  // Of the move: what may take room that it doesn't have yet. Store::room() is asked before such a move.
  std::uint64_t fresh_bytes = 0;
  Range punch;  // in punch_store, after commit; empty when there is nothing to punch
  Store* punch_store = nullptr;
};

// One step of a preparation, in order.
struct PrepareStep {
  enum class What : std::uint8_t { read, write, sync, allocate } what;
  Store* store;
  std::uint64_t at;      // read, write, allocate
  std::uint64_t offset;  // read, write: where in Preparation::buffer
  std::uint64_t length;  // read, write, allocate
};

// Control I/O that a target needs before it can answer: a state page to be read, a session to be begun, room
// to be had. Filled by Target::prepare, carried out by the device step by step until one fails, then told to
// Target::prepared. Thread safety: one thread at a time.
struct Preparation {
  Fixed<PrepareStep, 6> steps;
  Buffer buffer;  // taken from the queue's pool by the device: `buffer_bytes` long
  std::uint64_t buffer_bytes = 0;
  std::uint64_t key = 0;
  IoStatus refused;       // set by Target::prepared() when what was read can't be taken over: memory is short
  bool optional = false;  // lack of room is no failure: nobody waits for it
};

// A control write that belongs to a flush. `data` points into the memory of the FlushPlan.
struct FlushWrite {
  Store* store;
  std::uint64_t at;
  std::span<const std::byte> data;
  WriteMode mode = WriteMode::cached;
};

// Bytes that a flush needs from a store before it can write. `into` points into the memory of the FlushPlan.
struct FlushRead {
  Store* store;
  std::uint64_t at;
  std::span<std::byte> into;
};

// What one flush has to do: reads, after which the owners seal what they are going to write, then two rounds of
// {writes, then barriers}; the second starts when the first is durable. Filled by Target::capture. Thread safety:
// belongs to the flush worker.
struct FlushPlan {
  struct Round {
    std::vector<FlushWrite> writes;
    std::vector<Store*> syncs;  // each store once: add with sync()
    void sync(Store& store) {
      for (Store* each : syncs) {
        if (each == &store) return;
      }
      syncs.push_back(&store);
    }
  };
  std::vector<FlushRead> reads;
  Round rounds[2];
  std::vector<Buffer> memory;     // what the writes point to
  std::vector<Target*> owners;    // those to be told by flushed(): each target that captured something
  BufferPool* buffers = nullptr;  // set by the device: where capture takes memory from
  bool more = false;              // some target has more to write: flush again before completing the waiters
  IoStatus status;                // capture failed (memory): nothing was captured by the target that says so
};

}  // namespace oxbow
