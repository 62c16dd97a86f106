// SPDX-License-Identifier: Apache-2.0
#include "os/queue.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <map>
#include <memory>
#include <thread>
#include <vector>

namespace oxbow {
namespace {

// Notes that it completed, in which order. Thread safety: the queue's thread.
struct Noted : Io {
  explicit Noted(Queue& owner, std::vector<Noted*>* order_of = nullptr)
      : Io(owner,
           [](Io& self) noexcept {
             auto& noted = static_cast<Noted&>(self);
             ++noted.completions;
             noted.thread = std::this_thread::get_id();
             if (noted.order != nullptr) noted.order->push_back(&noted);
           }),
        order(order_of) {}
  std::vector<Noted*>* order;
  int completions = 0;
  std::thread::id thread;
};

bool readable(int fd) {
  pollfd waited{fd, POLLIN, 0};
  return ::poll(&waited, 1, 0) == 1;
}

TEST(Queue, CompletionsRunFromPollInTheOrderOfTheirPosts) {
  Queue queue;
  std::vector<Noted*> order;
  Noted first(queue, &order);
  Noted second(queue, &order);
  EXPECT_FALSE(queue.poll());
  EXPECT_FALSE(readable(queue.event_fd()));
  queue.post(first, {});
  queue.post(second, IoStatus::error(ENOSPC));
  EXPECT_TRUE(order.empty()) << "never inside the post";
  EXPECT_TRUE(readable(queue.event_fd()));
  EXPECT_TRUE(queue.poll());
  EXPECT_EQ(order, (std::vector{&first, &second}));
  EXPECT_TRUE(first.status.ok());
  EXPECT_EQ(second.status.error_number(), ENOSPC);
  EXPECT_FALSE(queue.poll());
  EXPECT_FALSE(readable(queue.event_fd()));
}

TEST(Queue, WaitEndsWithAPost) {
  Queue queue;
  for (int round = 0; round < 200; ++round) {
    Noted noted(queue);
    std::thread poster([&] { queue.post(noted, {}); });
    while (noted.completions == 0) {
      if (!queue.poll()) queue.wait();
    }
    poster.join();
    EXPECT_EQ(noted.completions, 1);
    EXPECT_EQ(noted.thread, std::this_thread::get_id());
  }
}

TEST(Queue, ManyThreadsPost) {
  constexpr std::size_t threads = 4;
  constexpr std::size_t each = 5'000;
  Queue queue;
  std::vector<Noted*> order;
  std::vector<std::unique_ptr<Noted>> ios;
  for (std::size_t index = 0; index < threads * each; ++index)
    ios.push_back(std::make_unique<Noted>(queue, &order));
  std::vector<std::thread> posters;
  for (std::size_t thread = 0; thread < threads; ++thread) {
    posters.emplace_back([&, thread] {
      for (std::size_t index = 0; index < each; ++index) queue.post(*ios[thread * each + index], {});
    });
  }
  while (order.size() < ios.size()) {
    if (!queue.poll()) queue.wait();
  }
  for (std::thread& poster : posters) poster.join();
  for (const auto& io : ios) EXPECT_EQ(io->completions, 1);
  // Those of one thread complete in its order.
  std::vector<std::size_t> places(ios.size());
  std::map<const Noted*, std::size_t> place_of;
  for (std::size_t place = 0; place < order.size(); ++place) place_of[order[place]] = place;
  for (std::size_t index = 0; index < ios.size(); ++index) places[index] = place_of[ios[index].get()];
  for (std::size_t thread = 0; thread < threads; ++thread) {
    const auto start = places.begin() + static_cast<std::ptrdiff_t>(thread * each);
    EXPECT_TRUE(std::is_sorted(start, start + each)) << "thread " << thread;
  }
}

// Posts itself again and again.
struct Restless : Io {
  explicit Restless(Queue& owner)
      : Io(owner, [](Io& self) noexcept {
          if (++static_cast<Restless&>(self).rounds < 1000) self.queue->post(self, {});
        }) {}
  int rounds = 0;
};

TEST(Queue, PollHasABoundAndSaysThatThereIsMore) {
  Queue queue;
  Restless restless(queue);
  queue.post(restless, {});
  EXPECT_TRUE(queue.poll());
  EXPECT_GT(restless.rounds, 1);
  EXPECT_LT(restless.rounds, 1000);
  EXPECT_TRUE(readable(queue.event_fd()));
  while (queue.poll()) continue;
  EXPECT_EQ(restless.rounds, 1000);
}

// The owner may destroy the queue as soon as its last completion has run, while post() is still returning.
TEST(Queue, MayBeDestroyedAfterTheLastCompletion) {
  for (int round = 0; round < 500; ++round) {
    auto queue = std::make_unique<Queue>();
    Noted noted(*queue);
    std::thread poster([&noted] { noted.queue->post(noted, {}); });
    while (noted.completions == 0) {
      if (!queue->poll()) queue->wait();
    }
    queue.reset();
    poster.join();
  }
}

TEST(Queue, RunBlockingWaitsForPendingAndTakesDone) {
  Queue queue;
  EXPECT_EQ(run_blocking(queue, [](Io&) { return Progress::failed(EROFS); }).error_number(), EROFS);
  Noted other(queue);
  queue.post(other, {});
  std::thread poster;
  const IoStatus status = run_blocking(queue, [&](Io& io) {
    poster = std::thread([&io] { io.queue->post(io, IoStatus::error(ENOSPC)); });
    return Progress::pending();
  });
  poster.join();
  EXPECT_EQ(status.error_number(), ENOSPC);
  EXPECT_EQ(other.completions, 1) << "other completions run meanwhile";
}

}  // namespace
}  // namespace oxbow
