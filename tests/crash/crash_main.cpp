// SPDX-License-Identifier: Apache-2.0
// crash-test: runs random histories until so many crash states were checked.
#include <fmt/format.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "crash/history.h"
#include "os/canary.h"
#include "support/effort.h"

namespace {

using oxbow::crash::History;
using oxbow::crash::HistoryOptions;
using oxbow::crash::HistoryResult;

struct Arguments {
  std::uint64_t states = 0;  // 0: as the environment says
  std::uint64_t seed = 1;
  std::uint64_t history = 0;
  bool one = false;
  bool verbose = false;
  std::string kind = "all";
  std::string canary;
};

constexpr std::uint64_t k_short_states = 20'000;
constexpr std::uint64_t k_full_states = 1'000'000;
constexpr std::uint64_t k_most_reports = 5;

[[nodiscard]] HistoryOptions options_for(const Arguments& arguments, std::uint64_t seed) {
  HistoryOptions options;
  options.seed = seed;
  options.record = arguments.verbose;
  const bool all = arguments.kind == "all" || arguments.kind == "pair";
  options.pair = arguments.kind == "pair" || (arguments.kind == "all" && seed % 5 == 0);
  options.kill = all || arguments.kind == "kill";
  options.power_loss = arguments.kind != "kill";
  options.damage = all || arguments.kind == "damage";
  options.trouble = all || arguments.kind == "trouble";
  options.on_stuck = [seed](const std::string& what) {
    fmt::print("history {}: {}\n", seed, what);
    std::fflush(stdout);
    std::_Exit(1);
  };
  return options;
}

[[nodiscard]] std::string command_for(const Arguments& arguments, std::uint64_t seed) {
  std::string command = fmt::format("crash-test --history {} --verbose", seed);
  if (arguments.kind != "all") command += " --kind " + arguments.kind;
  if (!arguments.canary.empty()) command += " --canary " + arguments.canary;
  return command;
}

// Runs it again for its trace, unless that is there already.
void report(const Arguments& arguments, std::uint64_t seed, const HistoryResult& result) {
  HistoryResult shown = result;
  if (!arguments.verbose) {
    HistoryOptions options = options_for(arguments, seed);
    options.record = true;
    shown = History(std::move(options)).run();
  }
  constexpr std::size_t k_last_lines = 60;
  const std::size_t skipped =
      arguments.verbose || shown.trace.size() < k_last_lines ? 0 : shown.trace.size() - k_last_lines;
  if (skipped > 0) fmt::print("  … {} earlier lines\n", skipped);
  for (std::size_t i = skipped; i < shown.trace.size(); ++i) fmt::print("  {}\n", shown.trace[i]);
  if (result.violation) fmt::print("history {}: {}\n", seed, *result.violation);
  if (result.violation) fmt::print("to repeat: {}\n", command_for(arguments, seed));
  if (shown.hash != result.hash) fmt::print("history {}: a second run went another way\n", seed);
}

[[nodiscard]] int run(const Arguments& arguments) {
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [start] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  const std::uint64_t wanted =
      arguments.states != 0 ? arguments.states : oxbow::test::repetitions(k_short_states, k_full_states);
  std::uint64_t states = 0;
  std::uint64_t violations = 0;
  std::uint64_t seed = arguments.one ? arguments.history : arguments.seed;
  do {
    HistoryOptions options = options_for(arguments, seed);
    if (!arguments.one) options.most_states = wanted - states;
    const HistoryResult result = History(std::move(options)).run();
    states += result.states;
    if (result.violation) ++violations;
    const bool tell = result.violation && violations <= k_most_reports;
    if (tell || (arguments.one && arguments.verbose)) report(arguments, seed, result);
    if (terminal && seed % 64 == 0)
      fmt::print(stderr, "\r{} of {} states, {:.0f}/s ", states, wanted,
                 static_cast<double>(states) / seconds());
    ++seed;
  } while (!arguments.one && states < wanted);
  if (terminal) fmt::print(stderr, "\r");
  fmt::print("{:.1f} s, {:.0f} states/s\n", seconds(), static_cast<double>(states) / seconds());
  fmt::print("crash states: {}, violations: {}, seed: {}\n", states, violations,
             arguments.one ? arguments.history : arguments.seed);
  return violations == 0 ? 0 : 1;
}

[[nodiscard]] bool choose_canary(const std::string& name) {
#ifdef OXBOW_CANARIES
  for (const oxbow::CanaryName& each : oxbow::k_canary_names) {
    if (each.name == name) oxbow::set_canary(each.canary);
    if (each.name == name) return true;
  }
  for (const oxbow::CanaryName& each : oxbow::k_cowloop_canary_names) {
    if (each.name == name) oxbow::set_canary(each.canary);
    if (each.name == name) return true;
  }
  fmt::print(stderr, "crash-test: --canary {}: there is none of that name\n", name);
#else
  fmt::print(stderr, "crash-test: --canary {}: only crash-test-canary has canaries\n", name);
#endif
  return false;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app(
      "Crashes simulated layers in every way that the durability contract speaks of, and checks what is "
      "left");
  app.add_option("--states", arguments.states,
                 "check this many crash states (default 10000; OXBOW_TEST_FULL=1: 100000)");
  const CLI::Option* seed =
      app.add_option("--seed", arguments.seed, "of the first history; each next one has the next number");
  const CLI::Option* one = app.add_option("--history", arguments.history, "run this one history only");
  app.add_option("--kind", arguments.kind,
                 "which histories: all, power, kill, trouble, damage, or pair, those of pairs of cowloop")
      ->check(CLI::IsMember({"all", "power", "kill", "trouble", "damage", "pair"}));
  app.add_option("--canary", arguments.canary, "break this rule (crash-test-canary only)");
  app.add_flag("--verbose", arguments.verbose, "print the whole trace of a violation, and of --history");
  CLI11_PARSE(app, argc, argv);
  arguments.one = one->count() > 0;
  if (seed->count() == 0 && !arguments.one) arguments.seed = oxbow::test::seed();
  if (!arguments.canary.empty() && !choose_canary(arguments.canary)) return 2;
  return run(arguments);
}
