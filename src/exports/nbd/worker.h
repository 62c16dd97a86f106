// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <string_view>
#include <thread>
#include <vector>

#include "exports/nbd/connection.h"
#include "os/fd.h"
#include "os/log.h"
#include "os/queue.h"
#include "oxbow/error.h"

namespace oxbow::nbd {

// How long to look for work before sleeping, learnt from how long the last sleeps were: it grows while they
// are shorter than the limit and falls to nothing when one was longer, as the halt polling of KVM does.
// Thread safety: none.
class SpinTime {
 public:
  using Duration = std::chrono::nanoseconds;

  explicit SpinTime(Duration limit) noexcept : limit_(limit) {}
  [[nodiscard]] Duration now() const noexcept { return now_; }
  void slept(Duration how_long) noexcept {
    if (how_long > limit_) {
      now_ = Duration::zero();
    } else {
      now_ = std::min(limit_, std::max(now_ * 2, k_least));
    }
  }

 private:
  static constexpr Duration k_least = std::chrono::microseconds(5);
  Duration limit_;
  Duration now_{0};
};

// A thread that serves many connections: their sockets, and the queue on which their requests complete, in
// one epoll set.
//
// Each turn a connection receives at most once, so that none keeps the others waiting. A connection that has
// probably sent more is asked again before the kernel is asked for news.
// Thread safety: adopt(), stop(), connections() and ended() from any thread; destruction after ended().
class Worker {
 public:
  struct Options {
    std::chrono::microseconds poll_limit{0};  // at most that long the thread looks for work before it sleeps
    Log* log = nullptr;                       // borrowed; null: silent
    int tell_end_fd = -1;                     // an eventfd that is written when it has ended
  };

  [[nodiscard]] static Result<std::unique_ptr<Worker>> start(const Options& options);
  // Breaks off what is still there and waits for the thread.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  Worker(Worker&&) = delete;
  Worker& operator=(Worker&&) = delete;

  // Serves it until its end, or ends it at once if stop() came before.
  void adopt(std::unique_ptr<Connection> connection);
  // How many it has.
  [[nodiscard]] std::size_t connections() const noexcept { return count_.load(std::memory_order_relaxed); }

  // Goes that far with all connections; the thread ends after the last. Only further than before.
  void stop(Stop how) noexcept;
  [[nodiscard]] bool ended() const noexcept { return ended_.load(std::memory_order_acquire); }

 private:
  struct Served;

  explicit Worker(const Options& options);
  void run() noexcept;
  void take_adopted() noexcept;
  void take_in(std::unique_ptr<Connection> connection);
  void apply_stop() noexcept;
  void run_ready() noexcept;
  void feed_starved() noexcept;
  void step(Served& served) noexcept;
  void watch(Served& served, const Interest& wanted) noexcept;
  void unwatch(Served& served) noexcept;
  void make_ready(Served& served) noexcept;
  void remove(Served& served) noexcept;
  void expire() noexcept;
  void log_end(std::string_view why) const noexcept;
  void wait() noexcept;
  [[nodiscard]] bool look(int timeout_ms) noexcept;
  [[nodiscard]] bool spin() noexcept;
  [[nodiscard]] int sleep_limit_ms() const noexcept;
  void wake() noexcept;

  Options options_;
  Queue queue_;
  UniqueFd epoll_;
  SpinTime spin_;
  std::list<Served> served_;
  std::vector<Served*> ready_;     // to be stepped
  std::vector<Served*> turn_;      // being stepped
  std::vector<Served*> haggling_;  // those with a deadline
  std::vector<Served*> starved_;   // those that wait for others' buffers
  std::size_t lent_when_starved_bytes_ = 0;
  unsigned turns_without_look_ = 0;
  bool completions_ = false;  // the queue has something to run
  Stop stopped_ = Stop::no;

  std::atomic<Stop> stop_{Stop::no};
  std::atomic<bool> ended_{false};
  std::atomic<std::size_t> count_{0};
  std::mutex mutex_;  // guards adopted_
  std::vector<std::unique_ptr<Connection>> adopted_;
  std::atomic<bool> any_adopted_{false};
  std::thread thread_;  // last: it uses all of them
};

}  // namespace oxbow::nbd
