// SPDX-License-Identifier: Apache-2.0
// What a history does to a layer as a whole between two lives.
#include <fmt/format.h>

#include <algorithm>

#include "crash/history.h"
#include "targets/cow/layer_edit.h"

namespace oxbow::crash {
namespace {

constexpr std::uint64_t k_never_step = UINT64_MAX;

}  // namespace

Result<void> History::run_once(Job job, std::uint64_t size_bytes, std::uint64_t crash_step, bool& cut) {
  JobRun run(random_, trace_, shape_, disks_, shape_.pending_percent);
  watch(run.queue(), std::string(name_of(job)));
  run.queue().before_step = [&](std::uint64_t step) {
    if (step < crash_step) return;
    cut = true;
    run.kill();
  };
  const auto result = job == Job::reset ? run.reset() : job == Job::grow ? run.grow(size_bytes) : run.merge();
  run.queue().drain();
  if (result && cut) complain(fmt::format("a {} says that it is done, and was cut off", name_of(job)));
  return result;
}

void History::lose(Oracle::Crash how) {
  if (how == Oracle::Crash::power_loss) {
    disks_ = disks_.clone();
    disks_.lose_power(random_);
  } else {
    for (const auto& layer : disks_.layers) layer->forget_submitter();
    if (disks_.base != nullptr) disks_.base->forget_submitter();
    disks_.live = disks_.live->clone();
  }
  oracle_.crashed(how);
}

void History::run_job() {
  const auto job = static_cast<Job>(random_.below(3));
  if (job == Job::merge && disks_.layers.size() == 1 && disks_.base == nullptr) return;
  // What is covered by no flush, or was left by a write that failed, in the files below is not what this is about.
  std::vector<std::shared_ptr<sim::SimDisk>> below(disks_.layers.begin(), disks_.layers.end() - 1);
  if (disks_.base != nullptr) below.push_back(disks_.base);
  for (const auto& disk : below) {
    disk->forget_submitter();
    disk->complete_barrier(disk->submit_barrier());
  }
  const auto before = superblock_of(disks_.layers.back());
  if (!before) return complain("before a job: " + before.error().text());
  const std::uint64_t size_bytes =
      std::min(before->size + random_.between(1, 40) * k_sector_bytes, before->max_size);
  const std::uint64_t crash_step =
      random_.chance(60) ? random_.below(random_.chance(50) ? 40 : 200) : k_never_step;
  trace_.remark(std::string(name_of(job)));
  bool cut = false;
  const auto result = run_once(job, size_bytes, crash_step, cut);
  if (!result && !cut) return complain(fmt::format("{} fails: {}", name_of(job), result.error().text()));
  const auto how = !cut || !options_.kill || (options_.power_loss && random_.chance(70))
                       ? Oracle::Crash::power_loss
                       : Oracle::Crash::bare_kill;
  const std::string when = fmt::format(
      "a {}{}", name_of(job),
      cut ? fmt::format(" cut off by a {}", how == Oracle::Crash::bare_kill ? "kill" : "power loss") : "");
  closed_ = !cut;
  if (cut) {
    lose(how);
  } else if (job != Job::reset) {
    oracle_.end_flush(oracle_.begin_flush());  // it was closed cleanly on the way
  }
  if (cut && how == Oracle::Crash::bare_kill) {
    // What a kill left in the cache is not durable yet, and nobody said so; what follows takes it as settled.
    sim::SimDisk& layer = *disks_.layers.back();
    layer.complete_barrier(layer.submit_barrier());
  }
  const auto after = superblock_of(disks_.layers.back());
  if (!after) return complain(fmt::format("after {}: {}", when, after.error().text()));
  if (is_merging(*after)) {
    resume_merge();
    if (result_.violation) return;
    // Cut off by a power loss it may also be as if it had never begun.
    const auto ended = superblock_of(disks_.layers.back());
    if (ended && ended->absent_before != before->absent_before) job_done(job, size_bytes, when);
  } else if (after->absent_before != before->absent_before || after->size != before->size) {
    job_done(job, size_bytes, when);
  }
  if (result_.violation) return;
  if (cut) return verify(disks_, when, how);
  Disks off = disks_.clone();
  off.lose_power(random_);
  verify(off, when + " and a power loss", std::nullopt);
}

// Nobody else may open it meanwhile.
void History::resume_merge() {
  for (unsigned tries = 0; tries < 3; ++tries) {
    Stack stack(random_, trace_, shape_);
    const auto opened = stack.open(disks_, random_.chance(50), 0);
    if (opened || opened.error().why() != k_merging_reason)
      return complain("a layer whose merge is not finished can be opened");
    bool cut = false;
    const std::uint64_t crash_step = tries < 2 && random_.chance(50) ? random_.below(200) : k_never_step;
    const auto result = run_once(Job::merge, 0, crash_step, cut);
    if (result) return;
    if (!cut) return complain("a merge can't be resumed: " + result.error().text());
    lose(options_.power_loss ? Oracle::Crash::power_loss : Oracle::Crash::bare_kill);
    if (const auto now = superblock_of(disks_.layers.back()); now && !is_merging(*now)) return;
  }
}

void History::job_done(Job job, std::uint64_t size_bytes, const std::string& when) {
  const std::size_t number = disks_.layers.size() - 1;
  if (job == Job::reset) return show_base(when);
  if (job == Job::grow) {
    const std::uint64_t old_bytes = shape_.layers[number].size_bytes;
    shape_.layers[number].size_bytes = size_bytes;
    shape_.windows.push_back({old_bytes / k_sector_bytes * k_sector_bytes,
                              size_bytes - old_bytes / k_sector_bytes * k_sector_bytes});
    // Those that are put on it are no smaller.
    for (LayerShape& layer : shape_.layers)
      layer.size_bytes = std::max(layer.size_bytes, &layer > &shape_.layers[number] ? size_bytes : 0);
    return;
  }
  const std::uint64_t bytes = shape_.layers[number].size_bytes;
  if (number == 0) {
    shape_.base_bytes = disks_.base->size();
  } else {
    shape_.layers[number - 1].size_bytes = std::max(shape_.layers[number - 1].size_bytes, bytes);
  }
  Disks below = disks_.clone();
  below.layers.pop_back();
  below.lose_power(random_);
  verify(below, when + ", of the base", std::nullopt);
}

// After a reset: the layer reads as its base does, and that is all that is known from now on.
void History::show_base(const std::string& when) {
  Disks below = disks_.clone();
  below.layers.pop_back();
  Stack lower(random_, trace_, shape_);
  Stack whole(random_, trace_, shape_);
  const Disks top = disks_.clone();
  const bool has_below = below.base != nullptr || !below.layers.empty();
  if (has_below && !lower.open(below, false, 0))
    return complain("after " + when + ": the base can't be opened");
  if (auto opened = whole.open(top, false, 0); !opened)
    return complain(fmt::format("after {}: cannot open: {}", when, opened.error().text()));
  const std::uint64_t shown =
      std::min(has_below ? lower.device().size() : 0, superblock_of(disks_.layers.back())->base_visible);
  std::vector<std::byte> found(k_sector_bytes);
  std::vector<std::byte> expected(k_sector_bytes);
  const std::vector<std::uint64_t> sectors = oracle_.known_sectors();
  oracle_.forget();
  for (const std::uint64_t number : sectors) {
    const std::uint64_t at = number * k_sector_bytes;
    if (at + k_sector_bytes > whole.device().size()) continue;
    std::ranges::fill(expected, std::byte{0});
    IoStatus read = run_blocking(whole.queue(), [&](Io& io) { return whole.device().read(io, at, found); });
    if (read.ok() && at < shown) {
      const auto part = std::span(expected).first(std::min(k_sector_bytes, shown - at));
      read = run_blocking(lower.queue(), [&](Io& io) { return lower.device().read(io, at, part); });
    }
    if (!read.ok()) return complain(fmt::format("after {}: reading {:#x} fails", when, at));
    if (found != expected) return complain(fmt::format("after {}: {:#x} doesn't read as the base", when, at));
    oracle_.set_initial(number, sim::SectorView(found.data(), k_sector_bytes));
  }
}

}  // namespace oxbow::crash
