// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "os/queue.h"
#include "sim/chooser.h"

namespace oxbow::sim {

// Something that is under way and happens in one or more steps. Thread safety: that of its queue.
class SimEvent {
 public:
  SimEvent() noexcept = default;
  virtual ~SimEvent() = default;
  SimEvent(const SimEvent&) = delete;
  SimEvent& operator=(const SimEvent&) = delete;
  SimEvent(SimEvent&&) = delete;
  SimEvent& operator=(SimEvent&&) = delete;

  // Takes one step. False when that was the last: the queue has forgotten the event before, and does not look
  // at it again.
  virtual bool advance() = 0;
};

// What happened in a run, as a hash and, when asked for, as lines of text. Thread safety: none.
class Trace {
 public:
  void note(std::string_view what, std::string_view where, std::uint64_t first = 0, std::uint64_t second = 0);
  void record(bool on) noexcept { recording_ = on; }
  // A line that is not part of the hash: for what explains the others.
  void remark(std::string text);
  [[nodiscard]] bool recording() const noexcept { return recording_; }
  [[nodiscard]] std::uint64_t hash() const noexcept { return hash_; }
  [[nodiscard]] const std::vector<std::string>& lines() const noexcept { return lines_; }

 private:
  std::uint64_t hash_ = 0xCBF29CE484222325U;
  bool recording_ = false;
  std::vector<std::string> lines_;
};

// A queue whose completions come in the order that a Chooser wants: each wait() makes one thing of those that
// are under way go on by a step. Single-threaded; the device, its flushes and all stores of a simulation
// share one. Thread safety: none.
class SimQueue final : public Queue {
 public:
  // `chooser` and `trace` are borrowed.
  SimQueue(Chooser& chooser, Trace& trace) noexcept : chooser_(chooser), trace_(trace) {}

  void add(SimEvent& event) { under_way_.push_back(&event); }

  // Takes one step of something under way. When nothing is, whoever waits would wait for ever: on_stuck is
  // called, and must not return.
  void wait() noexcept override;

  // Runs completions that were posted, or else takes a step. False when there is nothing to do at all.
  bool step() noexcept;
  // Steps until nothing is left to do.
  void drain() noexcept {
    while (step()) {
    }
  }

  // Called before every step, with its number from 0 on: the place where power fails.
  std::function<void(std::uint64_t)> before_step;
  std::function<void()> on_stuck;

  [[nodiscard]] bool idle() const noexcept { return under_way_.empty(); }
  [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }
  [[nodiscard]] Chooser& chooser() noexcept { return chooser_; }
  [[nodiscard]] Trace& trace() noexcept { return trace_; }

 private:
  Chooser& chooser_;
  Trace& trace_;
  std::vector<SimEvent*> under_way_;
  std::uint64_t steps_ = 0;
};

}  // namespace oxbow::sim
