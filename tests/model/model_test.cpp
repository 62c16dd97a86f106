// SPDX-License-Identifier: Apache-2.0
// Random operations on a device and on a plain array of bytes give the same.
#include <gtest/gtest.h>

#include <functional>

#include "model/machine.h"
#include "model/scene.h"
#include "os/queue.h"
#include "support/effort.h"

namespace oxbow::model {
namespace {

constexpr std::uint64_t k_short = 100'000;
constexpr std::uint64_t k_long = 1'000'000;
constexpr std::uint64_t k_per_scene = 3'000;

using Make = std::function<std::unique_ptr<Scene>(sim::Random&, Queue&)>;

// `percent` of all operations, on a fresh scene every now and then.
void run(const Make& make, std::uint64_t percent) {
  const std::uint64_t first = test::seed();
  const std::uint64_t count = test::repetitions(k_short * percent / 100, k_long * percent / 100);
  Queue queue;
  for (std::uint64_t done = 0, number = 0; done < count; done += k_per_scene, ++number) {
    sim::Random random(sim::Random::mix(first + number));
    const auto scene = make(random, queue);
    if (testing::Test::HasFailure()) return;
    Machine machine(*scene, random, queue);
    bool sound = true;
    for (std::uint64_t i = 0; i < std::min(k_per_scene, count - done) && sound; ++i) sound = machine.step();
    if (!sound || !machine.finish()) {
      ADD_FAILURE() << "scene " << number << ": to repeat it alone: OXBOW_TEST_SEED=" << first + number;
      return;
    }
  }
}

TEST(Model, ChainsOfLayers) { run(make_chain, 50); }
TEST(Model, Tables) { run(make_table, 30); }
TEST(Model, Files) {
  run([](sim::Random& random, Queue&) { return make_file(random); }, 10);
}
TEST(Model, RamDisks) {
  run([](sim::Random& random, Queue&) { return make_ram(random); }, 10);
}

}  // namespace
}  // namespace oxbow::model
