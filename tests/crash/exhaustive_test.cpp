// SPDX-License-Identifier: Apache-2.0
// Small cases in full: short scripts on a layer of two and a half clusters over a base of one and a half, or on a pair
// of cowloop of three blocks, a crash at every step, and after each crash every subset of the operations that are not
// durable, with each of them torn.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <vector>

#include "crash/oracle.h"
#include "crash/original.h"
#include "crash/stack.h"
#include "support/effort.h"

namespace oxbow::crash {
namespace {

using sim::Exhaustive;
using sim::SimDisk;

// What the scripts run on.
struct Subject {
  bool pair;
  std::uint64_t cluster;
  std::uint64_t device;
  std::uint64_t base;
};
constexpr Subject k_layer{false, 4096, 2 * 4096 + 2048, 4096 + 2048};
constexpr Subject k_pair{true, 1024, 3 * 1024, 3 * 1024 + 512};

enum class Do : std::uint8_t { write, zero, discard, flush, tidy_up, reopen };

struct Act {
  std::string_view name;
  Do what;
  Range range{};
  bool durable = false;
};

// The first eight are changes.
std::vector<Act> acts_on(const Subject& subject) {
  const std::uint64_t cluster = subject.cluster;
  std::vector<Act> acts{
      {"write a whole cluster", Do::write, {0, cluster}},
      {"write a sector of a cluster", Do::write, {512, 512}},
      {"write odd bytes across clusters", Do::write, {cluster - 700, 1500}},
      {"write the last cluster", Do::write, {2 * cluster, subject.device - 2 * cluster}},
      {"write a sector, FUA", Do::write, {subject.pair ? 0U : 1024U, 512}, true},
      {"zero a cluster", Do::zero, {0, cluster}},
      {"zero a part of two clusters, FUA", Do::zero, {cluster - 512, 1024}, true},
      {"discard a cluster", Do::discard, {0, cluster}},
      {"flush", Do::flush},
      {"close and open", Do::reopen},
  };
  if (subject.pair) acts.push_back({"leave it clean", Do::tidy_up});
  return acts;
}
using Script = std::vector<Act>;

[[nodiscard]] std::string text_of(const Script& script) {
  std::string text;
  for (const Act& act : script) text += (text.empty() ? "" : "; ") + std::string(act.name);
  return text;
}

// Every subset of the operations that are not durable; besides, at most one of those that are kept is torn: of its
// sectors only the first one is found, or all but the first.
class AnyOperations final : public sim::PowerLoss {
 public:
  AnyOperations(Exhaustive& all, const SimDisk& disk) : operations_(disk.undurable_operations()) {
    for (std::size_t i = 0; i < operations_.size(); ++i) kept_.push_back(all.chance(50));
    const std::uint64_t torn = all.below(operations_.size() + 1);
    torn_ = torn == 0 ? 0 : operations_[torn - 1];
    if (torn_ != 0 && kept_[torn - 1]) only_first_ = all.chance(50);
  }
  [[nodiscard]] std::size_t survivor(std::uint64_t sector,
                                     std::span<const sim::OperationId> operations) override {
    for (std::size_t i = operations.size(); i > 0; --i) {
      if (is_found(operations[i - 1], sector)) return i;
    }
    return 0;
  }

 private:
  [[nodiscard]] bool is_found(sim::OperationId operation, std::uint64_t sector) const {
    const auto place = std::ranges::lower_bound(operations_, operation);
    if (!kept_[static_cast<std::size_t>(place - operations_.begin())]) return false;
    const bool first = sector % 8 == 0;
    return operation != torn_ || first == only_first_;
  }

  std::vector<sim::OperationId> operations_;
  std::vector<bool> kept_;
  sim::OperationId torn_ = 0;
  bool only_first_ = false;
};

// Takes the first of what is possible, but for one decision, number `deviation`, which it takes the other way.
class NearlyFirst final : public sim::Chooser {
 public:
  explicit NearlyFirst(std::uint64_t deviation = UINT64_MAX) noexcept : deviation_(deviation) {}
  [[nodiscard]] std::uint64_t below(std::uint64_t bound) override {
    if (bound <= 1) return 0;
    return decisions_++ == deviation_ ? 1 : 0;
  }
  [[nodiscard]] bool chance(unsigned percent) override { return percent >= 100; }
  [[nodiscard]] std::uint64_t decisions() const noexcept { return decisions_; }

 private:
  std::uint64_t deviation_;
  std::uint64_t decisions_ = 0;
};

struct Flight : Io {
  Flight(Queue& owner, std::function<void(IoStatus)> then)
      : Io(owner, [](Io& self) noexcept { static_cast<Flight&>(self).finish(self.status); }),
        on_end(std::move(then)) {}
  void finish(IoStatus result) {
    ended = true;
    on_end(result);
  }
  std::function<void(IoStatus)> on_end;
  std::vector<std::byte> bytes;
  bool ended = false;
};

// One script on one layer, with the oracle that follows it. Each store call is pending and takes two steps: it takes
// effect, and it completes.
class Case {
 public:
  explicit Case(const Subject& subject) : subject_(subject) {
    shape_.pair = subject.pair;
    shape_.base_bytes = subject.base;
    shape_.layers.push_back({subject.device, subject.pair ? 10U : 12U, true});
    disks_.base = std::make_shared<SimDisk>(pool_, subject.base);
    std::vector<std::byte> bytes(subject.base);
    fill_content(k_base_image, 0, bytes);
    const sim::OperationId operation = disks_.base->begin();
    disks_.base->put(operation, 0, bytes);
    disks_.base->complete(operation);
    disks_.base->complete_barrier(disks_.base->submit_barrier());
    for (std::uint64_t at = 0; at < subject.base; at += k_sector_bytes) {
      oracle_.set_initial(at / k_sector_bytes, sim::SectorView(bytes.data() + at, k_sector_bytes));
    }
    NearlyFirst first;
    auto disk = std::make_shared<SimDisk>(pool_, 0);
    Stack stack(first, trace_, shape_);
    EXPECT_TRUE(stack.format(disks_, disk, 1));
    disks_.layers.push_back(disk);
  }

  // One act after the other.
  void run(const Script& script, const std::function<void()>& at_each_step) {
    NearlyFirst first;
    std::size_t next = 0;
    while (next < script.size() || !closed_) {
      Stack stack(first, trace_, shape_);
      open(stack, at_each_step);
      closed_ = false;
      for (; next < script.size() && script[next].what != Do::reopen; ++next) {
        if (script[next].what == Do::tidy_up) {
          tidy_up(stack);
          continue;
        }
        auto flight = begin(stack, script[next]);
        stack.queue().drain();
        EXPECT_TRUE(flight->ended) << text_of(script);
      }
      if (next < script.size()) ++next;
      close(stack);
    }
  }

  // All acts at the same time; `deviation` picks the schedule. Returns how many there are.
  std::uint64_t run_together(const Script& script, std::uint64_t deviation,
                             const std::function<void()>& at_each_step) {
    NearlyFirst chooser(deviation);
    Stack stack(chooser, trace_, shape_);
    open(stack, at_each_step);
    std::vector<std::unique_ptr<Flight>> flights;
    for (const Act& act : script) flights.push_back(begin(stack, act));
    stack.queue().drain();
    for (const auto& flight : flights) EXPECT_TRUE(flight->ended) << text_of(script);
    return chooser.decisions();
  }

  // Opens what a power loss left and compares; returns what is wrong.
  [[nodiscard]] std::optional<std::string> check(sim::PowerLoss& loss) const {
    Disks found = disks_;
    found.layers[0] = std::make_shared<SimDisk>(*disks_.layers[0]);
    found.layers[0]->lose_power(loss);
    NearlyFirst first;
    sim::Trace trace;
    Stack stack(first, trace, shape_);
    if (auto opened = stack.open(found, false, 0); !opened) return opened.error().text();
    std::vector<std::byte> bytes(subject_.device);
    if (subject_.pair) {
      Original original(*found.base, *found.layers[0]);
      if (auto wrong = original.open(Original::Mark::accepted)) return "the original: " + *wrong;
      original.read(0, bytes);
      if (auto wrong = oracle_.check_after_crash(Oracle::Crash::power_loss, 0, bytes))
        return "the original shows: " + *wrong;
    }
    const IoStatus status =
        run_blocking(stack.queue(), [&](Io& io) { return stack.device().read(io, 0, bytes); });
    if (!status.ok()) return "the device cannot be read";
    return oracle_.check_after_crash(Oracle::Crash::power_loss, 0, bytes);
  }

  [[nodiscard]] const SimDisk& disk() const { return *disks_.layers[0]; }
  // Changes with everything that can make a difference to what a crash leaves, or may leave.
  [[nodiscard]] std::uint64_t moment() const { return trace_.hash(); }

 private:
  void open(Stack& stack, const std::function<void()>& at_each_step) {
    stack.queue().before_step = [at_each_step](std::uint64_t) { at_each_step(); };
    auto opened = stack.open(disks_, true, 100);
    ASSERT_TRUE(opened) << opened.error().text();
  }
  void close(Stack& stack) {
    const Moment since = oracle_.begin_flush();
    EXPECT_TRUE(stack.device().close(stack.queue()).ok());
    oracle_.end_flush(since);
    closed_ = true;
  }
  void tidy_up(Stack& stack) {
    stack.device().suspend(stack.queue());
    const Moment since = oracle_.begin_flush();
    EXPECT_TRUE(stack.device().tidy_up(stack.queue()).ok());
    oracle_.end_flush(since);
    stack.device().resume();
  }
  [[nodiscard]] std::unique_ptr<Flight> begin(Stack& stack, const Act& act) {
    const bool flush = act.what == Do::flush;
    const Moment since = flush ? oracle_.begin_flush() : 0;
    const ChangeKind kind = act.what == Do::write ? ChangeKind::content : ChangeKind::zeros;
    const WriteId id = flush ? 0 : oracle_.begin_write(act.range, kind, act.durable);
    auto flight = std::make_unique<Flight>(stack.queue(), [this, flush, since, id](IoStatus status) {
      EXPECT_TRUE(status.ok());
      if (flush) return oracle_.end_flush(since);
      oracle_.end_write(id, status.ok());
    });
    const Progress progress = send(stack.device(), *flight, act, id);
    if (progress.is_done()) flight->finish(progress.status());
    return flight;
  }
  static Progress send(Device& device, Flight& flight, const Act& act, WriteId id) {
    const Durability durability = act.durable ? Durability::when_completed : Durability::with_flush;
    if (act.what == Do::flush) return device.flush(flight);
    if (act.what == Do::zero) return device.zero(flight, act.range, false, durability);
    if (act.what == Do::discard) return device.discard(flight, act.range, durability);
    flight.bytes.resize(act.range.length);
    fill_content(id, act.range.offset, flight.bytes);
    return device.write(flight, act.range.offset, flight.bytes, durability);
  }

  const Subject subject_;
  Shape shape_;
  sim::SectorPool pool_;
  sim::Trace trace_;
  Oracle oracle_;
  Disks disks_;
  bool closed_ = false;
};

// Tries everything that a power loss can leave now. Returns the number of states.
std::uint64_t try_all(const Case& now, const Script& script) {
  std::uint64_t states = 0;
  Exhaustive all;
  while (all.next()) {
    AnyOperations loss(all, now.disk());
    const auto wrong = now.check(loss);
    ++states;
    if (wrong) ADD_FAILURE() << text_of(script) << ": " << *wrong;
    if (wrong) return states;
  }
  return states;
}

// Whatever a power loss leaves after a crash at any step of each script of `length` acts.
std::uint64_t try_scripts(const Subject& subject, std::size_t length, std::uint64_t stride) {
  const std::vector<Act> acts = acts_on(subject);
  std::uint64_t states = 0;
  std::uint64_t number = 0;
  Exhaustive scripts;
  while (scripts.next() && !testing::Test::HasFailure()) {
    Script script;
    for (std::size_t i = 0; i < length; ++i) script.push_back(acts[scripts.below(acts.size())]);
    if (number++ % stride != 0) continue;
    Case now(subject);
    std::uint64_t last = 0;
    const auto crash = [&] {
      if (testing::Test::HasFailure() || now.moment() == last) return;
      last = now.moment();
      states += try_all(now, script);
    };
    now.run(script, crash);
    crash();
  }
  return states;
}

// Two requests and a flush at the same time, under every schedule that differs in one decision from the plain one.
std::uint64_t try_together(const Subject& subject) {
  const std::vector<Act> acts = acts_on(subject);
  constexpr std::size_t k_changes = 8;
  std::uint64_t states = 0;
  std::uint64_t number = 0;
  Exhaustive pairs;
  while (pairs.next() && !testing::Test::HasFailure()) {
    const Act& first = acts[pairs.below(k_changes)];
    const Act& second = acts[pairs.below(k_changes)];
    const Script script{first, second, {"flush", Do::flush}};
    std::uint64_t decisions = 1;
    for (std::uint64_t deviation = 0; deviation <= decisions && !testing::Test::HasFailure(); ++deviation) {
      if (!test::full_run() && ++number % 7 != 0) continue;
      Case now(subject);
      std::uint64_t step = 0;
      const auto crash = [&] {
        if ((step++ + deviation) % 8 == 0) states += try_all(now, script);
      };
      decisions = now.run_together(script, deviation, crash);
      states += try_all(now, script);
    }
  }
  return states;
}

void expect_many(std::uint64_t states) {
  std::printf("%llu states\n", static_cast<unsigned long long>(states));
  EXPECT_GT(states, 10'000U);
}

// All of three acts in the long run; a fixed selection, which meets every act in every place, in the short one.
std::uint64_t stride() { return test::full_run() ? 1 : 7; }

TEST(SmallCases, ScriptsOfOneAndTwo) { expect_many(try_scripts(k_layer, 1, 1) + try_scripts(k_layer, 2, 1)); }

TEST(SmallCases, ScriptsOfThree) { expect_many(try_scripts(k_layer, 3, stride())); }

TEST(SmallCases, TwoRequestsAndAFlushAtTheSameTime) { expect_many(try_together(k_layer)); }

TEST(SmallCases, ScriptsOfOneAndTwoOnAPair) {
  EXPECT_GT(try_scripts(k_pair, 1, 1) + try_scripts(k_pair, 2, 1), 3'000U);
}

TEST(SmallCases, ScriptsOfThreeOnAPair) { expect_many(try_scripts(k_pair, 3, stride())); }

TEST(SmallCases, TwoRequestsAndAFlushAtTheSameTimeOnAPair) { EXPECT_GT(try_together(k_pair), 3'000U); }

}  // namespace
}  // namespace oxbow::crash
