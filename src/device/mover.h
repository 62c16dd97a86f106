// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "device/failure.h"
#include "os/task.h"
#include "targets/target.h"

namespace oxbow {

class Statistics;

// Carries out what targets answer: reads extents, runs preparations, fills in and writes moves. Holds no
// state of a request; the coroutines do. Thread safety: any number of requests at a time, each on its own
// queue's thread.
class Mover {
 public:
  Mover(Target& target, StickyFailure& failure, Statistics& statistics) noexcept
      : target_(&target), failure_(failure), statistics_(statistics) {}

  // Only while no request is in flight.
  void use(Target& target) noexcept { target_ = &target; }

  // Reads as much of `range` as can be had without waiting. Returns the bytes of `out` that are filled in; an
  // error ends the attempt and stands in `status`.
  [[nodiscard]] std::uint64_t read_now(Io& io, Range range, std::span<std::byte> out,
                                       IoStatus& status) noexcept;
  // Reads `range` of `from`, waiting where needed. `out` is as long as the range.
  [[nodiscard]] Task read(Queue& queue, const Target& from, Range range, std::span<std::byte> out);

  // Writes, zeroes or discards `range`; `data` is the payload of a write. Both are shortened by what has been
  // done: when it fails, what is left can be tried again. `join` is set when durability was asked for and has to
  // come from a flush that captures after the end of this task. `full` as below.
  [[nodiscard]] Task change(Queue& queue, Range& range, Change change, std::span<const std::byte>& data,
                            bool& join, Store*& full);

  // Appends to `out` what a prefix of `range` is made of, down to the holes of the stores.
  [[nodiscard]] Task extents(Queue& queue, Range range, Extents& out);

  // Hints to the stores that the range is going to be read.
  [[nodiscard]] Task prefetch(Queue& queue, Range range);

  // Waits for what a busy or prepare answer asks for. Where that fails for lack of room, `full` is set to the
  // store that lacks it.
  [[nodiscard]] Task wait_for(Queue& queue, Step step, Store*& full);
  [[nodiscard]] Task wait_for(Queue& queue, Step step);
  // Carries out preparation `key` of `owner`; `full` as above.
  [[nodiscard]] Task prepare(Queue& queue, Target& owner, std::uint64_t key, Store*& full);

 private:
  [[nodiscard]] Task carry_out(Queue& queue, Plan& plan, std::span<const std::byte> payload, bool durable);
  [[nodiscard]] Task move(Queue& queue, const Plan& plan, std::span<const std::byte> payload, bool durable);
  [[nodiscard]] Task fill(Queue& queue, Target* below, Range range, std::span<std::byte> out);

  Target* target_;
  StickyFailure& failure_;
  Statistics& statistics_;
};

}  // namespace oxbow
