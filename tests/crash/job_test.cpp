// SPDX-License-Identifier: Apache-2.0
// Jobs that change a layer as a whole, cut off at every step and with an error at every call.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "crash/job_scene.h"
#include "formats/native/codec.h"
#include "support/effort.h"

namespace oxbow::crash {
namespace {

struct Case {
  const char* name;
  Job job;
  JobSceneShape shape;
};

constexpr Case k_cases[] = {
    {"reset", Job::reset, {}},
    {"reset_without_holes", Job::reset, {.punches = false}},
    {"reset_of_an_unclean_layer", Job::reset, {.clean = false}},
    {"reset_over_a_shorter_base", Job::reset, {.base_short = 6 * 512}},
    {"reset_over_a_layer", Job::reset, {.layer_below = true}},
    {"grow", Job::grow, {}},
    {"grow_an_unclean_layer", Job::grow, {.clean = false}},
    {"grow_over_a_layer", Job::grow, {.layer_below = true, .base_short = 3 * 512}},
    {"merge", Job::merge, {}},
    {"merge_without_holes", Job::merge, {.punches = false}},
    {"merge_an_unclean_layer", Job::merge, {.clean = false}},
    {"merge_into_a_shorter_base", Job::merge, {.base_short = 21 * 512}},
    {"merge_into_a_layer", Job::merge, {.layer_below = true}},
    {"merge_into_a_shorter_layer", Job::merge, {.layer_below = true, .base_short = 17 * 512}},
};

class Jobs : public testing::TestWithParam<Case> {
 protected:
  [[nodiscard]] static std::uint64_t repetitions() { return test::repetitions(1, 40); }
};

TEST_P(Jobs, LeaveTheOldOrTheNewWhereverTheyAreCutOff) {
  std::uint64_t states = 0;
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + repetitions(); ++seed) {
    JobScene scene(GetParam().job, GetParam().shape, seed);
    const std::uint64_t steps = scene.length().steps;
    ASSERT_GT(steps, 5U);
    for (std::uint64_t step = 0; step <= steps; ++step) {
      for (const auto end :
           {JobScene::End::kill, JobScene::End::power_loss, JobScene::End::power_loss_of_all}) {
        const auto wrong = scene.cut_off(step, end);
        ASSERT_FALSE(wrong) << "seed " << seed << ": " << *wrong;
        ++states;
      }
    }
  }
  std::printf("%llu states\n", static_cast<unsigned long long>(states));
}

TEST_P(Jobs, TellEveryError) {
  const std::uint64_t first = test::seed();
  for (std::uint64_t seed = first; seed < first + repetitions(); ++seed) {
    JobScene scene(GetParam().job, GetParam().shape, seed);
    const std::uint64_t calls = scene.length().calls;
    for (std::uint64_t call = 0; call < calls; ++call) {
      const auto wrong = scene.fail(call, call % 2 == 0 ? EIO : ENOSPC);
      ASSERT_FALSE(wrong) << "seed " << seed << ": " << *wrong;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, Jobs, testing::ValuesIn(k_cases),
                         [](const auto& instance) { return std::string(instance.param.name); });

// What the file holds behind a device that ends inside a cluster never shows, also not when the device grows.
TEST(Grow, ShowsNothingOfWhatLayBehindTheDevicesEnd) {
  JobScene scene(Job::grow, {}, 1);
  const auto superblock = superblock_of(scene.disks().layers.back());
  ASSERT_TRUE(superblock);
  sim::SimDisk& disk = *scene.disks().layers.back();
  const std::uint64_t end = superblock->data_offset + superblock->size;
  const std::vector<std::byte> garbage(native::file_bytes(*superblock) - end, std::byte{0xEE});
  ASSERT_FALSE(garbage.empty());
  const sim::OperationId operation = disk.begin();
  disk.put(operation, end, garbage);
  disk.complete(operation);
  disk.complete_barrier(disk.submit_barrier());
  for (std::uint64_t step = 0; step <= scene.length().steps; ++step) {
    const auto wrong = scene.cut_off(step, JobScene::End::power_loss);
    ASSERT_FALSE(wrong) << *wrong;
  }
}

}  // namespace
}  // namespace oxbow::crash
