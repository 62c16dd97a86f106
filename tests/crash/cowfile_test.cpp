// SPDX-License-Identifier: Apache-2.0
// Jobs that change a cowfile as a whole, cut off at every step and with an error at every call.
#include <gtest/gtest.h>

#include <cstdio>

#include "crash/cowfile_scene.h"
#include "support/effort.h"

namespace oxbow::crash {
namespace {

struct Case {
  const char* name;
  CowfileJob job;
  CowfileSceneShape shape;
};

constexpr Case k_cases[] = {
    {"merge", CowfileJob::merge, {}},
    {"merge_of_32_bits", CowfileJob::merge, {.layout = cowloop::Layout::bytes_4}},
    {"merge_without_holes", CowfileJob::merge, {.punches = false}},
    {"merge_that_keeps_the_blocks", CowfileJob::merge_and_keep, {}},
    {"repair", CowfileJob::repair, {}},
    {"repair_of_32_bits", CowfileJob::repair, {.layout = cowloop::Layout::bytes_4}},
    {"forced_repair", CowfileJob::forced_repair, {}},
};

class CowfileCrash : public testing::TestWithParam<Case> {
 protected:
  [[nodiscard]] static std::uint64_t repetitions() { return test::repetitions(2, 60); }
};

TEST_P(CowfileCrash, LeavesAFileThatIsSoundWhereverItIsCutOff) {
  std::uint64_t states = 0;
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + repetitions(); ++seed) {
    CowfileScene scene(GetParam().job, GetParam().shape, seed);
    const std::uint64_t steps = scene.length().steps;
    ASSERT_GT(steps, 5U);
    for (std::uint64_t step = 0; step <= steps; ++step) {
      for (const auto end : {CowfileScene::End::kill, CowfileScene::End::power_loss,
                             CowfileScene::End::power_loss, CowfileScene::End::power_loss_of_all}) {
        const auto wrong = scene.cut_off(step, end);
        ASSERT_FALSE(wrong) << "seed " << seed << ": " << *wrong;
        ++states;
      }
    }
  }
  std::printf("%llu states\n", static_cast<unsigned long long>(states));
}

TEST_P(CowfileCrash, TellsEveryError) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + repetitions(); ++seed) {
    CowfileScene scene(GetParam().job, GetParam().shape, seed);
    const std::uint64_t calls = scene.length().calls;
    for (std::uint64_t call = 0; call < calls; ++call) {
      const auto wrong = scene.fail(call, call % 2 == 0 ? EIO : ENOSPC);
      ASSERT_FALSE(wrong) << "seed " << seed << ": " << *wrong;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, CowfileCrash, testing::ValuesIn(k_cases),
                         [](const auto& instance) { return std::string(instance.param.name); });

}  // namespace
}  // namespace oxbow::crash
