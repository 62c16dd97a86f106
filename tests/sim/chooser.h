// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace oxbow::sim {

// Where a simulation takes its decisions from: seeded chance, or an enumeration of all that can happen.
// Everything that may go one way or another asks it, so that the same answers give the same run. Thread
// safety: none.
class Chooser {
 public:
  Chooser() noexcept = default;
  virtual ~Chooser() = default;
  Chooser(const Chooser&) = default;
  Chooser& operator=(const Chooser&) = default;
  Chooser(Chooser&&) = default;
  Chooser& operator=(Chooser&&) = default;

  // A number in [0, bound); `bound` is at least 1. A bound of 1 is no decision and uses nothing up.
  [[nodiscard]] virtual std::uint64_t below(std::uint64_t bound) = 0;
  // True in `percent` of 100 cases; 0 and 100 are no decisions.
  [[nodiscard]] virtual bool chance(unsigned percent) = 0;

  // A number in [low, high].
  [[nodiscard]] std::uint64_t between(std::uint64_t low, std::uint64_t high) {
    return low + below(high - low + 1);
  }
};

// Seeded chance (splitmix64): the same on every machine. Thread safety: none.
class Random final : public Chooser {
 public:
  explicit Random(std::uint64_t seed) noexcept : state_(seed) {}

  [[nodiscard]] std::uint64_t next() noexcept {
    state_ += 0x9E3779B97F4A7C15U;
    return mix(state_);
  }
  [[nodiscard]] std::uint64_t below(std::uint64_t bound) override { return bound <= 1 ? 0 : next() % bound; }
  [[nodiscard]] bool chance(unsigned percent) override {
    if (percent == 0 || percent >= 100) return percent != 0;
    return next() % 100 < percent;
  }

  // A well-spread function of `value`: for seeds from counters, and contents from tags.
  [[nodiscard]] static constexpr std::uint64_t mix(std::uint64_t value) noexcept {
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9U;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBU;
    return value ^ (value >> 31);
  }

 private:
  std::uint64_t state_;
};

// Runs through every sequence of decisions that a deterministic body can take:
//
//   Exhaustive all;
//   while (all.next()) body(all);
//
// The body must ask for the same things as long as it gets the same answers. Thread safety: none.
class Exhaustive final : public Chooser {
 public:
  // Moves on to the next sequence; false when all have been seen.
  [[nodiscard]] bool next() {
    position_ = 0;
    if (!started_) {
      started_ = true;
      return true;
    }
    while (!taken_.empty() && taken_.back().choice + 1 == taken_.back().bound) taken_.pop_back();
    if (taken_.empty()) return false;
    ++taken_.back().choice;
    return true;
  }

  [[nodiscard]] std::uint64_t below(std::uint64_t bound) override {
    if (bound <= 1) return 0;
    if (position_ == taken_.size()) taken_.push_back({0, bound});
    return taken_[position_++].choice;
  }
  [[nodiscard]] bool chance(unsigned percent) override {
    if (percent == 0 || percent >= 100) return percent != 0;
    return below(2) == 1;
  }

 private:
  struct Taken {
    std::uint64_t choice;
    std::uint64_t bound;
  };
  std::vector<Taken> taken_;
  std::size_t position_ = 0;
  bool started_ = false;
};

}  // namespace oxbow::sim
