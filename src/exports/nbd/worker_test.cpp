// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/worker.h"

#include <gtest/gtest.h>

#include <ctime>

#include "exports/nbd/test_session.h"

namespace oxbow::nbd {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::uint32_t k_eshutdown = 108;
constexpr std::size_t k_greeting = 18;
constexpr std::size_t k_hello_answer = 28;  // the greeting, and what EXPORT_NAME is answered with

void put_option(Bytes& out, std::uint32_t number, const Bytes& data = {}) {
  put(out, k_option_magic);
  put(out, number);
  put(out, static_cast<std::uint32_t>(data.size()));
  out.insert(out.end(), data.begin(), data.end());
}

// A worker and the clients that it serves. Thread safety: none.
class NbdWorker : public ::testing::Test {
 protected:
  void start(microseconds poll_limit = {}) {
    auto started = Worker::start({.poll_limit = poll_limit});
    ASSERT_TRUE(started);
    worker_ = std::move(*started);
  }
  // A client in the transmission phase.
  RawClient connected(const TransmissionLimits& limits = {}) {
    auto [client, server] = socket_pair();
    Connection::Options options;
    options.limits = limits;
    worker_->adopt(std::make_unique<Connection>(std::move(server), exports_, std::move(options)));
    RawClient raw(std::move(client));
    EXPECT_TRUE(raw.send(hello()));
    EXPECT_EQ(raw.receive(k_hello_answer).size(), k_hello_answer);
    return raw;
  }
  void wait_until_ended() const {
    const auto until = steady_clock::now() + std::chrono::seconds(20);
    while (!worker_->ended() && steady_clock::now() < until) std::this_thread::yield();
    EXPECT_TRUE(worker_->ended());
  }
  void wait_for_pending(std::size_t count) {
    const auto until = steady_clock::now() + std::chrono::seconds(20);
    while (disk_.store->waiting() < count && steady_clock::now() < until) std::this_thread::yield();
    EXPECT_GE(disk_.store->waiting(), count);
  }

  TestDevice disk_{1 << 20};
  Exports exports_ = *Exports::make({{.name = "disk", .device = &disk_.device}});
  std::unique_ptr<Worker> worker_;
};

TEST_F(NbdWorker, OneThreadServesMany) {
  start();
  std::vector<RawClient> clients;
  for (int i = 0; i < 50; ++i) clients.push_back(connected());
  EXPECT_EQ(worker_->connections(), 50U);
  for (std::uint64_t i = 0; i < clients.size(); ++i) {
    ASSERT_TRUE(clients[i].send(request(Command::write, i, i * 512, 512) + pattern(512, unsigned(i))));
  }
  for (std::uint64_t i = 0; i < clients.size(); ++i) EXPECT_EQ(clients[i].receive(16), simple_reply(i));
  for (std::uint64_t i = 0; i < clients.size(); ++i) {
    const std::uint64_t other = clients.size() - 1 - i;
    ASSERT_TRUE(clients[i].send(request(Command::read, i, other * 512, 512)));
    EXPECT_EQ(clients[i].receive(16 + 512), simple_reply(i) + pattern(512, unsigned(other)));
  }
  clients.clear();
  while (worker_->connections() > 0) std::this_thread::yield();
}

TEST_F(NbdWorker, ABusyClientDoesNotStarveTheOthers) {
  start();
  const RawClient busy = connected();
  const RawClient calm = connected();
  std::atomic<bool> enough{false};
  std::atomic<std::uint64_t> flooded{0};
  std::thread flood([&] {
    Bytes batch;
    for (int i = 0; i < 64; ++i) batch = batch + request(Command::read, 1, 0, 4096);
    while (!enough) {
      if (!busy.send(batch)) return;
      flooded += busy.receive(64 * (16 + 4096)).size();
    }
  });
  while (flooded == 0) std::this_thread::yield();
  for (std::uint64_t i = 0; i < 200; ++i) {
    ASSERT_TRUE(calm.send(request(Command::read, i, 0, 4)));
    ASSERT_EQ(calm.receive(20), simple_reply(i) + Bytes(4)) << i;
  }
  enough = true;
  flood.join();
  EXPECT_EQ(flooded % (64UL * (16 + 4096)), 0U);
}

TEST_F(NbdWorker, ACompletionIsAnsweredWhileNobodySendsAnything) {
  start();
  const RawClient client = connected();
  disk_.store->hold();
  ASSERT_TRUE(client.send(request(Command::read, 1, 0, 4)));
  wait_for_pending(1);
  EXPECT_TRUE(client.quiet());
  disk_.store->release();
  EXPECT_EQ(client.receive(20), simple_reply(1) + Bytes(4));
}

// epoll reports a hang-up again and again; a worker that looked at it each time would keep a core busy.
TEST_F(NbdWorker, AClientThatLeftIsWaitedForInSleep) {
  start();
  RawClient client = connected({.requests = 2});
  disk_.store->hold();
  // As many as it takes, so that it does not receive any more.
  ASSERT_TRUE(client.send(request(Command::read, 1, 0, 4) + request(Command::read, 2, 0, 4)));
  wait_for_pending(2);
  client.close();
  const std::clock_t before = std::clock();
  const auto since = steady_clock::now();
  std::this_thread::sleep_for(milliseconds(300));
  const double processor_seconds = static_cast<double>(std::clock() - before) / CLOCKS_PER_SEC;
  const std::chrono::duration<double> passed = steady_clock::now() - since;
  EXPECT_LT(processor_seconds, passed.count() / 2);
  EXPECT_EQ(worker_->connections(), 1U);
  disk_.store->release();
  while (worker_->connections() > 0) std::this_thread::yield();
}

TEST_F(NbdWorker, AClientThatTakesNothingLeavesBuffersForTheOthers) {
  start();
  const TransmissionLimits limits{.shared_bytes = 4 << 20, .share_bytes = 256 << 10};
  const RawClient greedy = connected(limits);
  const RawClient modest = connected(limits);
  disk_.store->hold();
  constexpr std::uint32_t k_large = 1 << 20;
  Bytes many;
  for (std::uint64_t i = 0; i < 32; ++i) many = many + request(Command::read, i, 0, k_large);
  ASSERT_TRUE(greedy.send(many));
  wait_for_pending(4);
  std::this_thread::sleep_for(milliseconds(20));
  const std::size_t of_greedy = disk_.store->waiting();
  EXPECT_LE(of_greedy, 5U) << "as many as fit, and the one that went over";
  ASSERT_TRUE(modest.send(request(Command::read, 99, 0, 512)));
  wait_for_pending(of_greedy + 1);

  disk_.store->release();
  EXPECT_EQ(modest.receive(16 + 512), simple_reply(99) + Bytes(512));
  for (std::uint64_t i = 0; i < 32; ++i) EXPECT_EQ(greedy.receive(16 + k_large).size(), 16 + k_large) << i;
}

// A client waits for buffers while another gives them back and nothing else happens.
TEST_F(NbdWorker, WhoWaitsForBuffersGoesOnWhenThereAreSome) {
  start();
  const TransmissionLimits limits{.shared_bytes = 2 << 20, .share_bytes = 0};
  const RawClient first = connected(limits);
  const RawClient second = connected(limits);
  disk_.store->hold();
  constexpr std::uint32_t k_large = 1 << 20;
  const Bytes two = request(Command::read, 1, 0, k_large) + request(Command::read, 2, 0, k_large);
  ASSERT_TRUE(first.send(two));
  wait_for_pending(2);
  ASSERT_TRUE(second.send(two));
  wait_for_pending(3);
  EXPECT_EQ(disk_.store->waiting(), 3U) << "the second client's second read waits";
  disk_.store->release();
  for (const RawClient* each : {&first, &second}) {
    EXPECT_EQ(each->receive(2 * (16 + k_large)).size(), 2 * (16 + k_large));
  }
}

TEST_F(NbdWorker, WhatComesAfterTheStopIsRefusedAndWhatIsInFlightFinished) {
  start();
  const RawClient client = connected();
  disk_.store->hold();
  ASSERT_TRUE(client.send(request(Command::write, 1, 0, 512) + pattern(512, 1)));
  wait_for_pending(1);
  worker_->stop(Stop::refuse_requests);
  std::this_thread::sleep_for(milliseconds(20));
  ASSERT_TRUE(client.send(request(Command::read, 2, 0, 512)));
  EXPECT_EQ(client.receive(16), simple_reply(2, k_eshutdown));
  ASSERT_TRUE(client.send(request(Command::write, 3, 0, 512) + pattern(512, 3)));
  EXPECT_EQ(client.receive(16), simple_reply(3, k_eshutdown));
  EXPECT_FALSE(worker_->ended());
  disk_.store->release();
  EXPECT_EQ(client.receive(16), simple_reply(1));
  EXPECT_TRUE(client.at_end());
  wait_until_ended();
  const Bytes contents = disk_.store->contents();
  EXPECT_EQ(Bytes(contents.begin(), contents.begin() + 512), pattern(512, 1));
}

TEST_F(NbdWorker, ALargeWriteThatTheStopInterruptsIsRefused) {
  start();
  const RawClient client = connected();
  const Bytes payload = pattern(1 << 20, 4);
  const auto half = payload.begin() + (100 << 10);
  ASSERT_TRUE(client.send(request(Command::write, 1, 0, 1 << 20) + Bytes(payload.begin(), half)));
  std::this_thread::sleep_for(milliseconds(20));
  worker_->stop(Stop::refuse_requests);
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_FALSE(worker_->ended()) << "the rest has to be read over";
  ASSERT_TRUE(client.send(Bytes(half, payload.end())));
  EXPECT_EQ(client.receive(16), simple_reply(1, k_eshutdown));
  EXPECT_TRUE(client.at_end());
  wait_until_ended();
}

TEST_F(NbdWorker, TheNextStageOfTheStopEndsAClientInTheMiddleOfARequest) {
  start();
  const RawClient client = connected();
  ASSERT_TRUE(client.send(Bytes(13)));
  std::this_thread::sleep_for(milliseconds(20));
  worker_->stop(Stop::refuse_requests);
  EXPECT_TRUE(client.quiet());
  worker_->stop(Stop::receive_nothing);
  EXPECT_TRUE(client.at_end());
  wait_until_ended();
}

TEST_F(NbdWorker, AClientDuringTheHandshakeIsLetGoAtTheStop) {
  start();
  auto [client, server] = socket_pair();
  worker_->adopt(std::make_unique<Connection>(std::move(server), exports_, Connection::Options()));
  const RawClient raw(std::move(client));
  EXPECT_EQ(raw.receive(18).size(), 18U);
  worker_->stop(Stop::refuse_requests);
  EXPECT_TRUE(raw.at_end());
  wait_until_ended();
}

// The last answer of the handshake is not out, and never will be.
TEST_F(NbdWorker, AClientThatDoesNotTakeTheHandshakeIsLetGoAtTheStop) {
  start();
  const Exports talkative =
      *Exports::make({{.name = "disk", .device = &disk_.device, .description = std::string(4096, 'x')}});
  auto [client, server] = socket_pair();
  const int small = 4096;
  must(::setsockopt(server.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)));
  worker_->adopt(std::make_unique<Connection>(std::move(server), talkative, Connection::Options()));
  const RawClient raw(std::move(client));
  Bytes said;
  put(said, std::uint32_t{3});
  for (int i = 0; i < 10; ++i) put_option(said, 3);
  Bytes go;
  put(go, std::uint32_t{0});
  put(go, std::uint16_t{0});
  put_option(said, 7, go);
  ASSERT_TRUE(raw.send(said));
  EXPECT_EQ(raw.receive(k_greeting + 1).size(), k_greeting + 1);
  worker_->stop(Stop::break_off);
  wait_until_ended();
}

TEST_F(NbdWorker, AnswersAllOptionsOfAClientThatFirstSendsAndThenReceives) {
  start();
  const Exports talkative =
      *Exports::make({{.name = "disk", .device = &disk_.device, .description = std::string(4096, 'x')}});
  auto [client, server] = socket_pair();
  worker_->adopt(std::make_unique<Connection>(std::move(server), talkative, Connection::Options()));
  const RawClient raw(std::move(client));
  constexpr std::size_t k_options = 120;
  constexpr std::size_t k_answer = 20 + 4 + 4 + 4096 + 20;
  Bytes said;
  put(said, std::uint32_t{3});
  for (std::size_t i = 0; i < k_options; ++i) put_option(said, 3);
  put_option(said, 2);
  ASSERT_TRUE(raw.send(said));
  EXPECT_EQ(raw.receive(k_greeting + k_options * k_answer + 20).size(),
            k_greeting + k_options * k_answer + 20);
  EXPECT_TRUE(raw.at_end());
}

TEST_F(NbdWorker, LooksForWorkBeforeItSleeps) {
  start(microseconds(200));
  const RawClient client = connected();
  for (std::uint64_t i = 0; i < 1000; ++i) {
    ASSERT_TRUE(client.send(request(Command::read, i, 0, 4)));
    ASSERT_EQ(client.receive(20), simple_reply(i) + Bytes(4)) << i;
  }
}

TEST(NbdSpinTime, GrowsWhileSleepsAreShortAndEndsWithALongOne) {
  SpinTime spin(microseconds(50));
  EXPECT_EQ(spin.now(), microseconds(0));
  for (const int expected : {5, 10, 20, 40, 50, 50}) {
    spin.slept(microseconds(50));
    EXPECT_EQ(spin.now(), microseconds(expected));
  }
  spin.slept(microseconds(51));
  EXPECT_EQ(spin.now(), microseconds(0));

  SpinTime none(microseconds(0));
  none.slept(microseconds(0));
  EXPECT_EQ(none.now(), microseconds(0));
}

TEST(NbdGuess, FollowsTheClient) {
  Guess guess;
  int asked = 0;
  for (int i = 0; i < 640; ++i) asked += guess.likely() ? 1 : 0;
  EXPECT_EQ(asked, 10) << "tried now and then";
  guess.learn(true);
  EXPECT_TRUE(guess.likely());
  for (int i = 0; i < 20; ++i) guess.learn(true);
  for (int i = 0; i < 3; ++i) guess.learn(false);
  EXPECT_TRUE(guess.likely());
  guess.learn(false);
  EXPECT_FALSE(guess.likely());
}

}  // namespace
}  // namespace oxbow::nbd
