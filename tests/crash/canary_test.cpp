// SPDX-License-Identifier: Apache-2.0
// Each rule of the durability contract, broken on purpose, is noticed by the crash test.
#include "os/canary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "crash/cowfile_scene.h"
#include "crash/history.h"
#include "crash/job_scene.h"
#include "support/effort.h"

namespace oxbow::crash {
namespace {

constexpr std::uint64_t k_most_states = 40'000;
constexpr std::uint64_t k_sound_states = 2'000;

struct Outcome {
  std::uint64_t states = 0;
  std::optional<std::string> violation;
};

// Runs histories until one finds something, or enough states were checked.
Outcome look(Canary canary, std::uint64_t seed, std::uint64_t most_states, bool pair = false) {
  set_canary(canary);
  Outcome outcome;
  while (outcome.states < most_states && !outcome.violation) {
    HistoryOptions options;
    options.seed = seed++;
    options.pair = pair;
    options.on_stuck = [](const std::string& what) {
      std::fprintf(stderr, "%s\n", what.c_str());
      std::_Exit(1);
    };
    HistoryResult result = History(std::move(options)).run();
    outcome.states += result.states;
    outcome.violation = std::move(result.violation);
  }
  set_canary(Canary::none);
  return outcome;
}

// The same with jobs that change a layer as a whole.
Outcome look_at_job(Canary canary, Job job, std::uint64_t seed, std::uint64_t most_states) {
  set_canary(canary);
  Outcome outcome;
  while (outcome.states < most_states && !outcome.violation) {
    JobScene scene(job, {.layer_below = seed % 2 == 0, .base_short = seed % 3 * k_sector_bytes}, seed);
    const std::uint64_t steps = scene.length().steps;
    for (std::uint64_t step = 0; step <= steps && !outcome.violation; ++step, ++outcome.states) {
      const auto end = step % 3 == 0 ? JobScene::End::kill : JobScene::End::power_loss;
      outcome.violation = scene.cut_off(step, end);
    }
    ++seed;
  }
  set_canary(Canary::none);
  return outcome;
}

std::optional<Job> job_of(Canary canary) {
  switch (canary) {
    case Canary::reset_punches_first:
      return Job::reset;
    case Canary::grow_superblock_first:
      return Job::grow;
    case Canary::merge_without_flag:
    case Canary::merge_ends_early:
    case Canary::merge_punches_first:
      return Job::merge;
    default:
      return std::nullopt;
  }
}

class Canaries : public testing::TestWithParam<CanaryName> {};

TEST_P(Canaries, AreCaught) {
  const auto job = job_of(GetParam().canary);
  const Outcome outcome = job ? look_at_job(GetParam().canary, *job, test::seed(), k_most_states)
                              : look(GetParam().canary, test::seed(), k_most_states);
  ASSERT_TRUE(outcome.violation) << "survived " << outcome.states << " states";
  std::printf("caught after %llu states: %s\n", static_cast<unsigned long long>(outcome.states),
              outcome.violation->c_str());
}

INSTANTIATE_TEST_SUITE_P(, Canaries, testing::ValuesIn(k_canary_names), [](const auto& instance) {
  std::string name(instance.param.name);
  std::ranges::replace(name, '-', '_');
  return name;
});

// Rules of a merge of layers that hold for that of a cowfile too.
class CowfileCanaries : public testing::TestWithParam<Canary> {};

TEST_P(CowfileCanaries, AreCaught) {
  set_canary(GetParam());
  Outcome outcome;
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; outcome.states < k_most_states && !outcome.violation; ++seed) {
    CowfileScene scene(CowfileJob::merge, {.punches = true}, seed);
    const std::uint64_t steps = scene.length().steps;
    for (std::uint64_t step = 0; step <= steps && !outcome.violation; ++step, ++outcome.states)
      outcome.violation = scene.cut_off(step, CowfileScene::End::power_loss);
  }
  set_canary(Canary::none);
  ASSERT_TRUE(outcome.violation) << "survived " << outcome.states << " states";
  std::printf("caught after %llu states: %s\n", static_cast<unsigned long long>(outcome.states),
              outcome.violation->c_str());
}

INSTANTIATE_TEST_SUITE_P(, CowfileCanaries,
                         testing::Values(Canary::merge_without_flag, Canary::merge_ends_early,
                                         Canary::merge_punches_first));

// What breaks in pairs of cowloop: their own rules, and those of layers that are theirs too.
constexpr std::array k_shared_canaries{
    Canary::flush_barriers_swapped, Canary::first_barrier_dropped, Canary::dirty_cleared_after_copy,
    Canary::fill_in_omitted,        Canary::claim_dropped_early,   Canary::fua_without_state_page,
    Canary::slots_without_room,     Canary::live_leaf_owned_early, Canary::live_leaves_private,
    Canary::live_leaf_overwritten,  Canary::live_pages_not_dirty,  Canary::live_not_marked_dead,
    Canary::live_removed_early,
};

std::vector<CanaryName> canaries_of_pairs() {
  std::vector<CanaryName> all(k_cowloop_canary_names.begin(), k_cowloop_canary_names.end());
  for (const CanaryName& each : k_canary_names) {
    if (std::ranges::find(k_shared_canaries, each.canary) != k_shared_canaries.end()) all.push_back(each);
  }
  return all;
}

class PairCanaries : public testing::TestWithParam<CanaryName> {};

TEST_P(PairCanaries, AreCaught) {
  const Outcome outcome = look(GetParam().canary, test::seed(), k_most_states, true);
  ASSERT_TRUE(outcome.violation) << "survived " << outcome.states << " states";
  std::printf("caught after %llu states: %s\n", static_cast<unsigned long long>(outcome.states),
              outcome.violation->c_str());
}

INSTANTIATE_TEST_SUITE_P(, PairCanaries, testing::ValuesIn(canaries_of_pairs()), [](const auto& instance) {
  std::string name(instance.param.name);
  std::ranges::replace(name, '-', '_');
  return name;
});

TEST(NoCanary, NothingIsCaughtInPairs) {
  const Outcome outcome =
      look(Canary::none, test::seed(), test::repetitions(k_sound_states, 10 * k_sound_states), true);
  EXPECT_FALSE(outcome.violation) << *outcome.violation;
}

TEST(NoCanary, NothingIsCaught) {
  const Outcome outcome =
      look(Canary::none, test::seed(), test::repetitions(k_sound_states, 10 * k_sound_states));
  EXPECT_FALSE(outcome.violation) << *outcome.violation;
}

TEST(History, ASeedRepeatsItBitForBit) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + 20; ++seed) {
    HistoryOptions options;
    options.seed = seed;
    options.pair = seed % 2 == 0;
    const HistoryResult once = History(options).run();
    options.record = true;
    const HistoryResult again = History(options).run();
    EXPECT_EQ(once.hash, again.hash) << "seed " << seed;
    EXPECT_EQ(once.states, again.states);
  }
}

}  // namespace
}  // namespace oxbow::crash
