// SPDX-License-Identifier: Apache-2.0
#pragma once

// Targets translate; they never do I/O and never block. A target answers where a range lives (locate), what has to
// happen to change it (plan), and takes note once it has happened (commit). The device moves the bytes.
// Names as in device-mapper: a target maps, the core moves.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "stores/extent.h"
#include "stores/store.h"
#include "targets/plan.h"

namespace oxbow {

// What `table` and `status` print of a target, as device-mapper does.
struct TargetStatus {
  std::string name;  // the target's type: "linear"
  std::string info;  // INFO: how it is doing; may be empty
  std::string
      table;  // TABLE: the arguments with which it can be made again, white space and backslashes escaped
};

// What the bytes of a line come from: a file of a chain, or memory.
struct ChainPart {
  std::string_view format;          // "oxb" or "raw"
  std::uint64_t size_bytes = 0;     // of the device that it holds
  std::uint64_t cluster_bytes = 0;  // of a layer, else 0
  StoreFacts store;
  std::string live{};  // of a layer that is written: its live file, from which the next process goes on when
                       // this one is killed
  std::string without_live{};  // or why it has none
  std::string uuid{};          // of a layer
  std::uint64_t epoch = 0;     // of a layer, as of the opening: grows with the first write after it
  bool adopted = false;        // its states were taken over from a process that was killed
  std::optional<std::uint64_t> used_clusters{};  // of a cowfile: how many are in it, where that was counted
  std::string_view state{};                      // of a cowfile: "clean" or "dirty"
};

// A line of a table that is in use.
struct TargetLine {
  std::uint64_t start = 0;   // in sectors
  std::uint64_t length = 0;  // in sectors; an odd end counts as a whole one
  TargetStatus status;
  std::vector<ChainPart> chain;  // from the line's own store down
};

// A place where bytes live, made of stores and other targets. Byte offsets are the target's own, in [0, size()).
// Thread safety: locate, plan, commit, prepare, prepared, release, wait, untidy, status, describe and lines from
// any thread; capture and flushed from the flush worker alone; the rest only while no request is in flight.
class Target {
 public:
  Target() noexcept = default;
  virtual ~Target() = default;
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;
  Target(Target&&) = delete;
  Target& operator=(Target&&) = delete;

  // Where a non-empty range within [0, size()) lives. Appends extents in order from range.offset on, as many
  // as fit and are known, adding up to Step::length. `out` may hold extents already; an answer other than
  // ready appends none.
  [[nodiscard]] virtual Step locate(Range range, Extents& out) const noexcept = 0;

  // What has to happen for a prefix of `change`. `plan` is empty; when the answer is not ready it stays empty.
  [[nodiscard]] virtual Step plan(Range range, const Change& change, Plan& plan) noexcept = 0;

  // Whether a zero of the range, which is not empty, does without writing zeros as data, but for edges that
  // are smaller than a cluster or the medium's unit. Changes nothing.
  [[nodiscard]] virtual bool zeroes_fast(Range range, bool allocate) noexcept;

  // The bytes of the plan's move are in the store: publish, and note what the next flush has to write. Never
  // called when the move failed.
  virtual void commit(Plan& plan) noexcept = 0;

  // Drops the claims of a plan of this target and wakes those who wait for them. Called by Plan::reset().
  virtual void release(Plan& plan) noexcept;
  // Registers `io` to be posted when claim `key` may be free. Answers done when it is free already.
  [[nodiscard]] virtual Progress wait(Io& io, std::uint64_t key) noexcept;

  // First without a buffer: sets buffer_bytes and steps for preparation `preparation.key`; the device takes
  // the buffer, and fill() lets the target write into it what the steps write. Then the device carries the
  // steps out.
  virtual void prepare(Preparation& preparation) noexcept;
  virtual void fill(Preparation& preparation) noexcept;
  // The outcome. A target must cope with the same preparation done twice at the same time.
  virtual void prepared(Preparation& preparation, IoStatus status) noexcept;

  // Adds to `plan` what makes everything durable that was committed before this call. May add its stores'
  // barriers only. A target adds itself to plan.owners when it wants to be told by flushed(). Allocates;
  // memory that is short goes to plan.status.
  virtual void capture(FlushPlan& plan) noexcept = 0;
  // The reads of a plan are done: completes what its writes point to.
  virtual void seal(FlushPlan& plan) noexcept;
  // Both rounds of a plan succeeded, or something failed: then no metadata may be written any more.
  virtual void flushed(const FlushPlan& plan, IoStatus status) noexcept;
  // Whether there is something to be prepared that nobody waits for: answers `prepare`, or `ready` when there is
  // not. Asked after flushes, on the flush worker.
  [[nodiscard]] virtual Step chore() noexcept;

  // The device has failed and refuses changes from now on: called once, before anybody is told. From any thread.
  virtual void failed() noexcept;

  // Whether the medium says that it is in use, which tidy_up() would end.
  [[nodiscard]] virtual bool untidy() const noexcept;
  // Leaves the medium as a clean end would, everything durable, and goes on; blocks. Nothing is in flight.
  [[nodiscard]] virtual IoStatus tidy_up(Queue& queue) noexcept;
  // Leaves everything clean after the last flush; blocks, on the control path. Nothing is in flight.
  [[nodiscard]] virtual IoStatus close(Queue& queue) noexcept;

  [[nodiscard]] virtual std::uint64_t size() const noexcept = 0;
  [[nodiscard]] virtual bool writable() const noexcept = 0;
  [[nodiscard]] virtual TargetStatus status() const = 0;
  // Appends the stores that the bytes come from, and those below them; a target without any has nothing to add.
  virtual void describe(std::vector<ChainPart>& chain) const;
  // As a table: one line over the whole target, unless it is a table itself.
  [[nodiscard]] virtual std::vector<TargetLine> lines() const;
};

}  // namespace oxbow
