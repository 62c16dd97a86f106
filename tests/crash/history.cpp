// SPDX-License-Identifier: Apache-2.0
#include "crash/history.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "crash/original.h"
#include "formats/native/codec.h"
#include "targets/cow/layer_head.h"

namespace oxbow::crash {
namespace {

using sim::Random;
using sim::SimDisk;
using sim::SimQueue;
using sim::SimStore;
using sim::StoreCall;

constexpr std::uint64_t k_never_step = UINT64_MAX;
constexpr std::uint64_t k_chunk_bytes = 64 * 1024;

[[nodiscard]] std::string_view name_of(Oracle::Crash how) {
  static constexpr std::string_view k_names[] = {"power loss", "kill", "kill without live state"};
  return k_names[static_cast<std::size_t>(how)];
}

}  // namespace

History::History(HistoryOptions options) : options_(std::move(options)), random_(Random::mix(options_.seed)) {
  trace_.record(options_.record);
}

void History::complain(std::string text) {
  if (result_.violation) return;
  trace_.remark("VIOLATION: " + text);
  result_.violation = std::move(text);
}

void History::watch(SimQueue& queue, const std::string& what) {
  queue.on_stuck = [this, what] {
    if (options_.on_stuck) options_.on_stuck(fmt::format("life {}: {} waits for ever", life_, what));
  };
}

HistoryResult History::run() {
  shape_ = options_.pair ? draw_pair(random_) : draw_shape(random_);
  trace_.remark("shape: " + shape_.text());
  make_base();
  make_layer();
  const std::uint64_t lives = random_.between(2, 5);
  for (life_ = 0; life_ < lives && !result_.violation && result_.states < options_.most_states; ++life_) {
    live();
    const bool has_jobs = !shape_.pair && !disks_.layers.empty();
    if (!result_.violation && has_jobs && random_.chance(25)) run_job();
    const bool may_grow = closed_ && disks_.layers.size() < shape_.layers.size();
    if (!result_.violation && may_grow && random_.chance(60)) make_layer();
  }
  result_.hash = trace_.hash();
  result_.trace = trace_.lines();
  return std::move(result_);
}

void History::make_base() {
  if (shape_.base_bytes == 0) return;
  disks_.base = std::make_shared<SimDisk>(pool_, shape_.base_bytes);
  SimDisk& disk = *disks_.base;
  const sim::OperationId operation = disk.begin();
  std::vector<std::byte> bytes;
  for (const Range& window : shape_.windows) {
    for (std::uint64_t at = window.offset; at < std::min(window.end(), shape_.base_bytes);) {
      const std::uint64_t end = std::min({(at | 4095) + 1, window.end(), shape_.base_bytes});
      bytes.assign(end - at, std::byte{0});
      // What is not durable is a write like others to the oracle, so that its loss is looked for too.
      const bool filled = random_.chance(65);
      if (filled && shape_.base_durable) {
        fill_content(k_base_image, at, bytes);
        for (std::uint64_t done = 0; done < bytes.size(); done += k_sector_bytes) {
          oracle_.set_initial((at + done) / k_sector_bytes,
                              sim::SectorView(bytes.data() + done, k_sector_bytes));
        }
      } else if (filled) {
        const WriteId id = oracle_.begin_write({at, end - at}, ChangeKind::content, false);
        fill_content(id, at, bytes);
        oracle_.end_write(id, true);
      }
      if (filled) disk.put(operation, at, bytes);
      at = end;
    }
  }
  disk.complete(operation);
  if (shape_.base_durable) disk.complete_barrier(disk.submit_barrier());
}

// Makes the next layer; now and then power fails on the way, and it is made again.
void History::make_layer() {
  const std::uint64_t crash_step = random_.chance(15) ? random_.below(25) : k_never_step;
  auto disk = std::make_shared<SimDisk>(pool_, 0);
  if (!try_make_layer(disk, crash_step)) {
    if (result_.violation) return;
    Disks found = disks_;
    disk = std::make_shared<SimDisk>(*disk);
    found.layers.push_back(disk);
    sim::RandomLoss loss(random_, *disk);
    disk->lose_power(loss);
    verify_created(found);
    disk = std::make_shared<SimDisk>(pool_, 0);
    if (!try_make_layer(disk, k_never_step)) return;
  }
  disks_.layers.push_back(std::move(disk));
  trace_.remark(fmt::format("layer {} is made", disks_.layers.size() - 1));
}

bool History::try_make_layer(const std::shared_ptr<SimDisk>& disk, std::uint64_t crash_step) {
  Stack stack(random_, trace_, shape_);
  watch(stack.queue(), "create");
  bool crashed = false;
  stack.queue().before_step = [&](std::uint64_t step) {
    if (step < crash_step) return;
    crashed = true;
    stack.kill();
  };
  auto made = stack.format(disks_, disk, random_.next());
  if (crashed) return false;
  if (!made) complain("create failed: " + made.error().text());
  return made.has_value();
}

void History::live() {
  over_ = false;
  closed_ = false;
  crash_step_ = random_.chance(50) ? random_.below(random_.chance(20) ? 40 : 400) : k_never_step;
  // Killed again while it takes over what the first kill left.
  kill_percent_ = 35;
  if (std::exchange(was_killed_, false) && random_.chance(40)) {
    crash_step_ = random_.below(40);
    kill_percent_ = 70;
  }
  probe_steps_.clear();
  for (std::uint64_t i = random_.below(4); i > 0; --i) probe_steps_.push_back(random_.below(400));
  {
    Stack stack(random_, trace_, shape_);
    watch(stack.queue(), "opening or closing");
    stack.queue().before_step = [&](std::uint64_t step) { before_step(stack, step); };
    trace_.remark(fmt::format("life {}", life_));
    watch_moments(stack);
    auto opened = stack.open(disks_, true, shape_.pending_percent);
    if (!opened && !over_) return complain("cannot open: " + opened.error().text());
    if (opened) act(stack);
    workload_ = nullptr;
#ifdef OXBOW_CANARIES
    set_canary_moment({});
#endif
  }
  if (result_.violation || !closed_) return;
  Disks off = disks_.clone();
  off.lose_power(random_);
  verify(off, "a clean close and power loss", Oracle::Crash::power_loss, false);
  if (shape_.pair) {
    ask_original(off, "a clean close and power loss", true);
  } else if (options_.damage && random_.chance(50)) {
    verify_damaged();
  }
}

void History::act(Stack& stack) {
  Trouble trouble = Trouble::none;
  if (options_.trouble && random_.chance(30)) trouble = static_cast<Trouble>(random_.between(1, 5));
  const std::uint64_t data_offset = stack.data_offset();
  Workload workload(random_, oracle_, shape_, stack, stack.cluster_shift(), trouble);
  workload_ = &workload;
  if (over_) workload.freeze();
  oracle_.set_retries(trouble == Trouble::full_paused);
  if (trouble != Trouble::full_paused) stack.device().give_up_waiting();  // what lacks room fails
  set_trouble(stack, trouble, data_offset);
  if (random_.chance(40)) lie_in_wait(stack, data_offset);
  workload.run(static_cast<unsigned>(random_.between(1, random_.chance(30) ? 60 : 20)));
  while (shape_.pair && !over_ && !workload.violation() && trouble != Trouble::full_paused &&
         random_.chance(40)) {
    tidy_up(stack, workload);
    if (!over_) workload.run(static_cast<unsigned>(random_.between(1, 20)));
  }
  if (!over_ && !workload.violation()) end_life(stack, workload);
  if (workload.violation()) {
    complain(fmt::format("life {}: {}", life_, *workload.violation()));
    over_ = true;
    workload.freeze();
    stack.kill();
  }
  workload.drain();
  if (workload.violation()) complain(fmt::format("life {}: {}", life_, *workload.violation()));
}

void History::tidy_up(Stack& stack, Workload& workload) {
  stack.device().suspend(stack.queue());
  const Moment since = oracle_.begin_flush();
  const IoStatus status = stack.device().tidy_up(stack.queue());
  stack.device().resume();
  if (over_) return;
  trace_.remark(fmt::format("tidied up: {}", status.error_number()));
  if (status.ok()) return oracle_.end_flush(since);
  if (workload.trouble() != Trouble::anything && !workload.may_have_failed())
    complain(fmt::format("tidying up failed with error {}", status.error_number()));
  crash(stack, random_.chance(50));
}

void History::lie_in_wait(Stack& stack, std::uint64_t data_offset) {
  auto writes = std::make_shared<std::uint64_t>(random_.between(1, 14));
  stack.stores().back()->observe = [this, &stack, writes, data_offset](const SimStore::Call& call) {
    if (call.kind != StoreCall::write || call.range.offset >= data_offset || --*writes != 0) return;
    crash_step_ = stack.queue().steps() + random_.below(12);
  };
}

void History::set_trouble(Stack& stack, Trouble trouble, std::uint64_t data_offset) {
  if (trouble == Trouble::none) return;
  trace_.remark(fmt::format("trouble {}", static_cast<int>(trouble)));
  if (trouble == Trouble::base_reads) {
    for (const auto& below : stack.stores().first(stack.stores().size() - 1)) {
      below->fault = [this](const SimStore::Call& call) {
        return call.kind == StoreCall::read && random_.chance(20) ? EIO : 0;
      };
    }
    return;
  }
  SimStore& store = *stack.stores().back();
  if (trouble == Trouble::full_paused) {
    auto from = std::make_shared<std::uint64_t>(store.calls() + random_.below(60));
    store.fault = [&store, from](const SimStore::Call& call) {
      store.set_full(call.number >= *from);
      return 0;
    };
    workload_->make_room = [this, &store, from] { *from = store.calls() + random_.between(1, 60); };
    return;
  }
  const std::uint64_t from = store.calls() + random_.below(60);
  if (trouble == Trouble::full_disk) {
    store.fault = [&store, from](const SimStore::Call& call) {
      store.set_full(call.number >= from);
      return 0;
    };
    return;
  }
  store.fault = [this, trouble, from, data_offset](const SimStore::Call& call) {
    if (call.number < from) return 0;
    const bool data = call.kind == StoreCall::write && call.range.offset >= data_offset;
    if (trouble == Trouble::data_writes && !data) return 0;
    if (!random_.chance(trouble == Trouble::data_writes ? 25 : 8)) return 0;
    return random_.chance(50) ? EIO : ENOSPC;
  };
}

void History::end_life(Stack& stack, Workload& workload) {
  if (random_.chance(30)) workload.read_all();
  if (over_ || workload.violation()) return;
  const std::uint64_t drawn = random_.below(100);
  // What is left then is settled by who opens it next.
  if (workload.failed() && drawn < 60) return crash(stack, true);
  if (drawn < 35) return crash(stack, false);
  if (drawn < 60) return crash(stack, true);
  if (workload.trouble() == Trouble::full_paused && random_.chance(30)) workload.give_up();
  workload.drain();
  if (!over_ && !workload.violation()) close(stack, workload);
}

void History::close(Stack& stack, Workload& workload) {
  const Moment since = oracle_.begin_flush();
  const IoStatus status = stack.device().close(stack.queue());
  if (over_) return;
  if (status.ok()) {
    if (workload.failed()) return complain("a device that had failed was closed without an error");
    oracle_.end_flush(since);
    closed_ = true;
    trace_.remark("closed");
    return;
  }
  if (workload.trouble() != Trouble::anything && !workload.may_have_failed()) {
    complain(fmt::format("close failed with error {}", status.error_number()));
  }
  crash(stack, random_.chance(30));
}

void History::before_step(Stack& stack, std::uint64_t step) {
  if (over_) return;
  if (step >= crash_step_) return crash(stack, random_.chance(kill_percent_));
  if (std::erase(probe_steps_, step) == 0) return;
  const bool lose = options_.power_loss && random_.chance(70);
  const Oracle::Crash how = lose ? Oracle::Crash::power_loss : kill_now();
  Disks copy = disks_.clone();
  if (lose) {
    copy.lose_power(random_);
  } else if (how == Oracle::Crash::power_loss) {
    copy.drop_caches(random_);
  }
  verify(copy, fmt::format("a {} tried at step {} of life {}", lose ? "power loss" : "kill", step, life_),
         how, false);
}

void History::watch_moments([[maybe_unused]] Stack& stack) {
#ifdef OXBOW_CANARIES
  set_canary_moment([this, &stack] {
    if (over_ || verifying_ || !random_.chance(3)) return;
    crash(stack, true);
  });
#endif
}

bool History::is_live_dead(Queue& queue, Store& top) {
  if (shape_.pair) return disks_.live->is_dead();
  const auto head = read_layer_head(queue, top);
  return head && disks_.live->is_dead(head->superblock);
}

Oracle::Crash History::kill_now() {
  if (disks_.layers.empty()) return Oracle::Crash::bare_kill;
  SimDisk& disk = *disks_.layers.back();
  Random random(1);
  sim::Trace trace;
  SimQueue queue(random, trace);
  SimStore store(queue, disks_.layers.back(), {.name = "layer", .pending_percent = 0});
  const bool dead = is_live_dead(queue, store);
  // The cache is dropped then, after a failed barrier with what it had marked clean.
  if (dead) return disk.barrier_failed() ? Oracle::Crash::power_loss : Oracle::Crash::bare_kill;
  const bool told = workload_ != nullptr && workload_->may_have_failed();
  if (shape_.live && workload_ != nullptr && workload_->failed()) {
    complain("a flush failed and its sender was told, but the live state isn't marked dead");
  }
  // A kill before anybody was told of a failed barrier is not covered; without live state none is.
  if (disk.barrier_failed() && !(told && shape_.live)) return Oracle::Crash::power_loss;
  return shape_.live ? Oracle::Crash::kill : Oracle::Crash::bare_kill;
}

void History::crash(Stack& stack, bool kill) {
  if (!options_.kill) kill = false;
  if (!options_.power_loss) kill = true;
  const Oracle::Crash how = kill ? kill_now() : Oracle::Crash::power_loss;
  over_ = true;
  was_killed_ = kill;
  if (workload_ != nullptr) workload_->freeze();
  stack.kill();
  trace_.remark(fmt::format("{} at step {}", kill ? name_of(how) : "power loss", stack.queue().steps()));
  if (how == Oracle::Crash::power_loss) {
    disks_ = disks_.clone();
    kill ? disks_.drop_caches(random_) : disks_.lose_power(random_);
  } else {
    for (const auto& layer : disks_.layers) layer->forget_submitter();
    // What the dying process still does must not be seen.
    disks_.live = disks_.live->clone();
  }
  oracle_.crashed(how);
  verify(disks_, fmt::format("{} at step {} of life {}", name_of(how), stack.queue().steps(), life_), how,
         true);
  if (options_.damage && !result_.violation && !disks_.layers.empty() && !shape_.pair && random_.chance(15))
    verify_damaged();
}

std::vector<Range> History::known_ranges() const {
  std::vector<Range> ranges;
  for (const std::uint64_t number : oracle_.known_sectors()) {
    const std::uint64_t at = number * k_sector_bytes;
    if (!ranges.empty() && ranges.back().end() == at && ranges.back().length < k_chunk_bytes) {
      ranges.back().length += k_sector_bytes;
    } else {
      ranges.push_back({at, k_sector_bytes});
    }
  }
  return ranges;
}

void History::verify(const Disks& disks, const std::string& when, Oracle::Crash how, bool settle) {
  if (result_.states >= options_.most_states) return;
  ++result_.states;
  verifying_ = true;
  Random random(random_.next());
  sim::Trace trace;
  Stack stack(random, trace, shape_);
  watch(stack.queue(), "reading after " + when);
  if (shape_.pair && how == Oracle::Crash::power_loss && !disks.layers.empty())
    ask_original(disks, when, false);
  auto opened = stack.open(disks, random.chance(40), random.chance(25) ? shape_.pending_percent : 0);
  if (!opened) return complain(fmt::format("after {}: cannot open: {}", when, opened.error().text()));
  read_known(stack, when, how, settle);
  verifying_ = false;
  trace_.note("verified", "", result_.states, trace.hash());
}

void History::ask_original(const Disks& disks, const std::string& when, bool clean) {
  Original original(*disks.base, *disks.layers.front());
  if (auto wrong = original.open(clean ? Original::Mark::refused : Original::Mark::accepted))
    return complain(fmt::format("after {}: the original: {}", when, *wrong));
  std::vector<std::byte> bytes;
  for (const Range& range : known_ranges()) {
    bytes.assign(range.length, std::byte{0x5A});
    original.read(range.offset, bytes);
    if (auto wrong = oracle_.check_after_crash(Oracle::Crash::power_loss, range.offset, bytes))
      return complain(fmt::format("after {}: the original shows: {}", when, *wrong));
  }
}

void History::read_known(Stack& stack, const std::string& when, Oracle::Crash how, bool settle) {
  std::vector<std::byte> bytes;
  for (const Range& range : known_ranges()) {
    bytes.assign(range.length, std::byte{0x5A});
    const IoStatus status =
        run_blocking(stack.queue(), [&](Io& io) { return stack.device().read(io, range.offset, bytes); });
    if (!status.ok()) {
      return complain(fmt::format("after {}: reading {:#x}+{:#x} fails with error {}", when, range.offset,
                                  range.length, status.error_number()));
    }
    if (auto wrong = oracle_.check_after_crash(how, range.offset, bytes)) {
      return complain(fmt::format("after {}: {}", when, *wrong));
    }
    if (settle) oracle_.found(how, range.offset, bytes);
  }
}

// A layer whose creation was cut off is refused, or it is whole.
void History::verify_created(const Disks& disks) {
  if (result_.states >= options_.most_states) return;
  Random random(random_.next());
  sim::Trace trace;
  Stack stack(random, trace, shape_);
  watch(stack.queue(), "opening a half-made layer");
  ++result_.states;
  if (stack.open(disks, false, 0))
    read_known(stack, "a power loss during create", Oracle::Crash::power_loss, false);
}

}  // namespace oxbow::crash
