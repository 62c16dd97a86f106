// SPDX-License-Identifier: Apache-2.0
// Small cases in full: short scripts on a layer of two and a half clusters over a base of one and a half, a crash at
// every step, and after each crash every subset of the operations that are not durable, with each of them torn.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <functional>

#include "crash/oracle.h"
#include "crash/stack.h"
#include "support/effort.h"

namespace oxbow::crash {
namespace {

using sim::Exhaustive;
using sim::SimDisk;

constexpr std::uint64_t k_cluster = 4096;
constexpr std::uint64_t k_device = 2 * k_cluster + k_cluster / 2;
constexpr std::uint64_t k_base = k_cluster + k_cluster / 2;

enum class Do : std::uint8_t { write, zero, discard, flush, reopen };

struct Act {
  std::string_view name;
  Do what;
  Range range{};
  bool durable = false;
};

constexpr std::array k_acts{
    Act{"write a whole cluster", Do::write, {0, k_cluster}},
    Act{"write a sector of a cluster", Do::write, {512, 512}},
    Act{"write odd bytes across clusters", Do::write, {k_cluster - 700, 1500}},
    Act{"write the last cluster", Do::write, {2 * k_cluster, k_cluster / 2}},
    Act{"write a sector, FUA", Do::write, {1024, 512}, true},
    Act{"zero a cluster", Do::zero, {0, k_cluster}},
    Act{"zero a part of two clusters, FUA", Do::zero, {k_cluster - 512, 1024}, true},
    Act{"discard a cluster", Do::discard, {0, k_cluster}},
    Act{"flush", Do::flush},
    Act{"close and open", Do::reopen},
};
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
  Case() {
    shape_.base_bytes = k_base;
    shape_.layers.push_back({k_device, 12, true});
    disks_.base = std::make_shared<SimDisk>(pool_, k_base);
    std::vector<std::byte> bytes(k_base);
    fill_content(k_base_image, 0, bytes);
    const sim::OperationId operation = disks_.base->begin();
    disks_.base->put(operation, 0, bytes);
    disks_.base->complete(operation);
    disks_.base->complete_barrier(disks_.base->submit_barrier());
    for (std::uint64_t at = 0; at < k_base; at += k_sector_bytes) {
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
    std::vector<std::byte> bytes(k_device);
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
std::uint64_t try_scripts(std::size_t length, std::uint64_t stride) {
  std::uint64_t states = 0;
  std::uint64_t number = 0;
  Exhaustive scripts;
  while (scripts.next() && !testing::Test::HasFailure()) {
    Script script;
    for (std::size_t i = 0; i < length; ++i) script.push_back(k_acts[scripts.below(k_acts.size())]);
    if (number++ % stride != 0) continue;
    Case now;
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

TEST(SmallCases, ScriptsOfOneAndTwo) {
  const std::uint64_t states = try_scripts(1, 1) + try_scripts(2, 1);
  std::printf("%llu states\n", static_cast<unsigned long long>(states));
  EXPECT_GT(states, 10'000U);
}

TEST(SmallCases, ScriptsOfThree) {
  // All of them in the long run; a fixed selection, which meets every act in every place, in the short one.
  const std::uint64_t states = try_scripts(3, test::full_run() ? 1 : 7);
  std::printf("%llu states\n", static_cast<unsigned long long>(states));
  EXPECT_GT(states, 10'000U);
}

// Two requests and a flush at the same time, under every schedule that differs in one decision from the plain one.
TEST(SmallCases, TwoRequestsAndAFlushAtTheSameTime) {
  std::uint64_t states = 0;
  std::uint64_t number = 0;
  Exhaustive pairs;
  while (pairs.next() && !HasFailure()) {
    const Act& first = k_acts[pairs.below(k_acts.size() - 2)];
    const Act& second = k_acts[pairs.below(k_acts.size() - 2)];
    const Script script{first, second, {"flush", Do::flush}};
    std::uint64_t decisions = 1;
    for (std::uint64_t deviation = 0; deviation <= decisions && !HasFailure(); ++deviation) {
      if (!test::full_run() && ++number % 7 != 0) continue;
      Case now;
      std::uint64_t step = 0;
      const auto crash = [&] {
        if ((step++ + deviation) % 8 == 0) states += try_all(now, script);
      };
      decisions = now.run_together(script, deviation, crash);
      states += try_all(now, script);
    }
  }
  std::printf("%llu states\n", static_cast<unsigned long long>(states));
  EXPECT_GT(states, 10'000U);
}

}  // namespace
}  // namespace oxbow::crash
