// SPDX-License-Identifier: Apache-2.0
#include "stores/file/range_lock.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "os/queue.h"
#include "os/task.h"

namespace oxbow {
namespace {

using Mode = RangeLock::Mode;

// A claim whose turn is noted. Thread safety: one thread.
struct Waiter : Io {
  Waiter(Queue& owner, RangeLock& lock, Range range, Mode mode)
      : Io(owner, [](Io& self) noexcept { static_cast<Waiter&>(self).held = true; }),
        claim(lock, range, mode) {
    held = claim.acquire(*this).is_done();
  }
  bool held = false;
  RangeLock::Claim claim;
};

class RangeLockTest : public ::testing::Test {
 protected:
  std::unique_ptr<Waiter> take(std::uint64_t from, std::uint64_t to, Mode mode) {
    return std::make_unique<Waiter>(queue_, lock_, Range{from, to - from}, mode);
  }
  Queue queue_;
  RangeLock lock_;
};

TEST_F(RangeLockTest, SharedClaimsShareExclusiveOnesDoNot) {
  auto a = take(0, 100, Mode::shared);
  auto b = take(50, 150, Mode::shared);
  auto apart = take(150, 200, Mode::exclusive);
  EXPECT_TRUE(a->held && b->held && apart->held);
  auto c = take(90, 110, Mode::exclusive);
  EXPECT_FALSE(c->held);
  a.reset();
  queue_.poll();
  EXPECT_FALSE(c->held) << "b is still in the way";
  b.reset();
  EXPECT_FALSE(c->held) << "told by the queue, not from within the release";
  queue_.poll();
  EXPECT_TRUE(c->held);
}

TEST_F(RangeLockTest, FirstComeFirstServed) {
  auto holder = take(0, 10, Mode::shared);
  auto writer = take(0, 10, Mode::exclusive);
  auto late = take(5, 15, Mode::shared);
  auto elsewhere = take(10, 15, Mode::shared);
  EXPECT_FALSE(writer->held);
  EXPECT_FALSE(late->held) << "it would starve the writer";
  EXPECT_TRUE(elsewhere->held);
  holder.reset();
  queue_.poll();
  EXPECT_TRUE(writer->held);
  EXPECT_FALSE(late->held);
  writer.reset();
  queue_.poll();
  EXPECT_TRUE(late->held);
}

Task add_one(Queue& queue, RangeLock& lock, Range range, std::uint64_t* counters) {
  WaitIo wait(queue);
  RangeLock::Claim claim(lock, range, Mode::exclusive);
  const IoStatus status = co_await wait(claim.acquire(wait));
  if (!status.ok()) co_return status;
  for (std::uint64_t at = range.offset; at < range.end(); ++at) ++counters[at];
  co_return status;
}

TEST_F(RangeLockTest, ThreadsExcludeEachOther) {
  constexpr int rounds = 20'000;
  std::array<std::uint64_t, 16> counters{};
  std::array<std::uint64_t, 16> expected{};
  std::array<std::thread, 3> threads;
  std::mutex mutex;
  for (unsigned seed = 0; seed < threads.size(); ++seed) {
    threads[seed] = std::thread([&, seed] {
      Queue queue;
      std::mt19937_64 random(seed);
      std::array<std::uint64_t, 16> mine{};
      for (int round = 0; round < rounds; ++round) {
        const std::uint64_t from = random() % 16;
        const Range range{from, 1 + random() % (16 - from)};
        const IoStatus status = run_blocking(
            queue, [&](Io& io) { return add_one(queue, lock_, range, counters.data()).detach(io); });
        EXPECT_TRUE(status.ok());
        for (std::uint64_t at = range.offset; at < range.end(); ++at) ++mine[at];
      }
      const std::scoped_lock hold(mutex);
      for (std::size_t at = 0; at < mine.size(); ++at) expected[at] += mine[at];
    });
  }
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(counters, expected);
}

}  // namespace
}  // namespace oxbow
