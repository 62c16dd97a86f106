// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "crash/job_run.h"
#include "crash/oracle.h"
#include "crash/shape.h"
#include "crash/stack.h"
#include "crash/workload.h"
#include "targets/cow/layer_head.h"

namespace oxbow::crash {

// What happens to the disks of a history. Thread safety: a value.
struct HistoryOptions {
  std::uint64_t seed = 1;
  bool power_loss = true;  // else only kills and clean ends
  bool kill = true;
  bool trouble = true;                                                    // failing disks
  bool damage = true;                                                     // bit rot and misdirected writes
  bool pair = false;                                                      // a pair of cowloop, no layers
  bool record = false;                                                    // keep the trace as text
  std::uint64_t most_states = std::numeric_limits<std::uint64_t>::max();  // it ends early after so many
  // Told when the simulation can't go on because everybody waits; must not return.
  std::function<void(const std::string&)> on_stuck;
};

struct HistoryResult {
  std::uint64_t states = 0;  // crashes after which everything was read and compared
  std::uint64_t hash = 0;    // of all that happened
  std::optional<std::string> violation;
  std::vector<std::string> trace;
};

// One history of a chain of layers: it is made, used, crashed, opened again, used again, … and after each crash
// everything that a user could read is compared with what the durability contract allows. On the way further
// crashes are tried on copies. The seed determines all of it. Thread safety: none.
class History {
 public:
  explicit History(HistoryOptions options);
  [[nodiscard]] HistoryResult run();

 private:
  enum class Damage : std::uint8_t { superblock, record, page, ring, misdirected_page };

  void make_base();
  void make_layer();
  // Resets, grows or merges the newest layer; now and then power fails, or the process is killed, on the way.
  void run_job();
  [[nodiscard]] Result<void> run_once(Job job, std::uint64_t size_bytes, std::uint64_t crash_step, bool& cut);
  void job_done(Job job, std::uint64_t size_bytes, const std::string& when);
  void resume_merge();
  void show_base(const std::string& when);
  void lose(Oracle::Crash how);
  bool try_make_layer(const std::shared_ptr<sim::SimDisk>& disk, std::uint64_t crash_step);
  void live();
  void act(Stack& stack);
  // What a sync does to a pair.
  void tidy_up(Stack& stack, Workload& workload);
  void end_life(Stack& stack, Workload& workload);
  void close(Stack& stack, Workload& workload);
  void set_trouble(Stack& stack, Trouble trouble, std::uint64_t data_offset);
  void before_step(Stack& stack, std::uint64_t step);
  void crash(Stack& stack, bool kill);
  // Arms a crash soon after one of the next writes of metadata, where most can go wrong.
  void lie_in_wait(Stack& stack, std::uint64_t data_offset);

  // Opens `disks` in a world of its own, reads everything that is known, and complains about what may not be.
  // Tells the oracle what was found when `settle` says so.
  void verify(const Disks& disks, const std::string& when, Oracle::Crash how, bool settle);
  void verify(const Disks& disks, const std::string& when, std::optional<Oracle::Crash> settle) {
    verify(disks, when, settle.value_or(Oracle::Crash::power_loss), settle.has_value());
  }
  // What the original would show of a pair, and what has to be so of the file.
  void ask_original(const Disks& disks, const std::string& when, bool clean);
  void read_known(Stack& stack, const std::string& when, Oracle::Crash how, bool settle);
  [[nodiscard]] bool is_live_dead(Queue& queue, Store& top);
  // What a kill at this moment leaves.
  [[nodiscard]] Oracle::Crash kill_now();
  // Lets the process be killed between two instructions where a canary build has a moment for it.
  void watch_moments(Stack& stack);
  void verify_created(const Disks& disks);
  void verify_damaged();
  [[nodiscard]] LayerHead head_of(const std::shared_ptr<sim::SimDisk>& disk);
  [[nodiscard]] std::string inflict(const std::shared_ptr<sim::SimDisk>& layer,
                                    const native::Superblock& superblock, Range& suspect);
  void read_damaged(Stack& stack, const std::string& what, Range suspect);
  [[nodiscard]] std::vector<Range> known_ranges() const;
  void complain(std::string text);
  void watch(sim::SimQueue& queue, const std::string& what);

  HistoryOptions options_;
  sim::Random random_;
  sim::Trace trace_;
  sim::SectorPool pool_;
  Shape shape_;
  Oracle oracle_;
  Disks disks_;
  HistoryResult result_;

  // Of the current life.
  unsigned life_ = 0;
  Workload* workload_ = nullptr;
  bool over_ = false;        // the crash has happened
  bool was_killed_ = false;  // the life before, or this one
  bool verifying_ = false;
  bool closed_ = false;
  std::uint64_t crash_step_ = 0;
  unsigned kill_percent_ = 35;  // how often what happens at that step is a kill
  std::vector<std::uint64_t> probe_steps_;
};

}  // namespace oxbow::crash
