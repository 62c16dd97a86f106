// SPDX-License-Identifier: Apache-2.0
#include "sim/sim_queue.h"

#include <fmt/format.h>

#include <cstdlib>

namespace oxbow::sim {

void Trace::note(std::string_view what, std::string_view where, std::uint64_t first, std::uint64_t second) {
  const auto add = [this](std::uint64_t value) { hash_ = Random::mix(hash_ ^ value) + 0x9E3779B97F4A7C15U; };
  for (const char letter : what) add(static_cast<unsigned char>(letter));
  for (const char letter : where) add(static_cast<unsigned char>(letter));
  add(first);
  add(second);
  if (recording_) lines_.push_back(fmt::format("{:<18} {:<12} {:#x} +{:#x}", what, where, first, second));
}

void Trace::remark(std::string text) {
  if (recording_) lines_.push_back(std::move(text));
}

void SimQueue::wait() noexcept {
  if (under_way_.empty()) {
    if (on_stuck) on_stuck();
    std::abort();
  }
  if (before_step) before_step(steps_);
  ++steps_;
  const std::uint64_t picked = chooser_.below(under_way_.size());
  SimEvent* event = under_way_[picked];
  // Out of the list first: what the step causes may add events, or end the simulation's interest in this one.
  under_way_[picked] = under_way_.back();
  under_way_.pop_back();
  if (event->advance()) under_way_.push_back(event);
}

bool SimQueue::step() noexcept {
  if (poll()) return true;
  if (under_way_.empty()) return false;
  wait();
  return true;
}

}  // namespace oxbow::sim
