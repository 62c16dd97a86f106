// SPDX-License-Identifier: Apache-2.0
#include "crash/job_scene.h"

#include <fmt/format.h>

#include <algorithm>

#include "crash/sim_target.h"
#include "targets/cow/layer_edit.h"
#include "targets/cow/layer_file.h"
#include "targets/cow/open_layer.h"

namespace oxbow::crash {
namespace {

constexpr std::uint64_t k_device_bytes = 13 * 4096 + 1536;
constexpr std::uint64_t k_growth_bytes = 5 * 4096 + 512;

using sim::Random;
using sim::SimDisk;

// Keeps everything that is in the cache. Thread safety: none.
class Best final : public sim::PowerLoss {
 public:
  [[nodiscard]] std::size_t survivor(std::uint64_t /*sector*/,
                                     std::span<const sim::OperationId> operations) override {
    return operations.size();
  }
};

// Keeps nothing that isn't durable. Thread safety: none.
class Nothing final : public sim::PowerLoss {
 public:
  [[nodiscard]] std::size_t survivor(std::uint64_t /*sector*/,
                                     std::span<const sim::OperationId> /*operations*/) override {
    return 0;
  }
};

void fill(Random& random, std::span<std::byte> bytes) {
  for (std::byte& each : bytes) each = static_cast<std::byte>(random.below(255) + 1);
}

void forget_submitter(const Disks& disks) {
  disks.base->forget_submitter();
  for (const auto& layer : disks.layers) layer->forget_submitter();
}

}  // namespace

JobScene::JobScene(Job job, const JobSceneShape& shape, std::uint64_t seed)
    : job_(job), wanted_(shape), random_(Random::mix(seed)) {
  shape_.base_bytes = k_device_bytes - shape.base_short;
  disks_.base = std::make_shared<SimDisk>(pool_, shape_.base_bytes);
  std::vector<std::byte> bytes(shape_.base_bytes);
  fill(random_, bytes);
  const sim::OperationId operation = disks_.base->begin();
  disks_.base->put(operation, 0, bytes);
  disks_.base->complete(operation);
  disks_.base->complete_barrier(disks_.base->submit_barrier());
  if (shape.layer_below) {
    shape_.layers.push_back({shape_.base_bytes, 12, shape.punches});
    make_layer();
    write_randomly(disks_, true);
  }
  below_ = disks_;
  shape_.layers.push_back({k_device_bytes, random_.chance(30) ? 13U : 12U, shape.punches});
  make_layer();
  write_randomly(disks_, shape.clean);
  if (job == Job::grow) grown_ = k_device_bytes + k_growth_bytes;
  std::string why;
  base_ = read(below_, why).value();
  base_.resize(k_device_bytes);
  content_ = read(disks_, why).value();
  superblock_ = superblock_of(disks_.layers.back()).value();
}

// Over what there is, with the record of its base as it is.
void JobScene::make_layer() {
  const LayerShape& shape = shape_.layers.back();
  LayerDescription description;
  description.size_bytes = shape.size_bytes;
  description.cluster_shift = shape.cluster_shift;
  description.max_size_bytes = 2 * shape.size_bytes;
  description.salt = random_.next();
  description.uuid[0] = static_cast<std::uint8_t>(shape_.layers.size());
  description.base_path = "below";
  sim::SimQueue queue(random_, trace_);
  if (disks_.layers.empty()) {
    sim::SimStore base(queue, disks_.base, {.pending_percent = 0});
    description.base.kind = native::BaseKind::raw;
    description.base.size = base.size();
    description.base.samples = sample_base(queue, base, description.uuid).value();
  } else {
    description.base = base_record(superblock_of(disks_.layers.back()).value());
  }
  auto disk = std::make_shared<SimDisk>(pool_, 0);
  sim::SimStore store(queue, disk, {.pending_percent = 0});
  format_layer(queue, store, description).value();
  disks_.layers.push_back(std::move(disk));
}

// All of it is durable afterwards; not closed means that a session was cut off right after a flush.
void JobScene::write_randomly(const Disks& disks, bool close) {
  Stack stack(random_, trace_, shape_);
  stack.open(disks, true, 0).value();
  const std::uint64_t size = stack.device().size();
  std::vector<std::byte> bytes;
  for (unsigned i = 0; i < 12; ++i) {
    Range range{random_.below(size / k_sector_bytes) * k_sector_bytes, 0};
    range.length = std::min(random_.between(1, 20) * k_sector_bytes, size - range.offset);
    bytes.resize(range.length);
    fill(random_, bytes);
    const std::uint64_t kind = random_.below(10);
    const auto change = [&](Io& io) {
      if (kind < 6) return stack.device().write(io, range.offset, bytes, Durability::with_flush);
      if (kind < 8) return stack.device().zero(io, range, kind == 6, Durability::with_flush);
      return stack.device().discard(io, range, Durability::with_flush);
    };
    if (!run_blocking(stack.queue(), change).ok()) std::abort();
  }
  const IoStatus flushed = run_blocking(stack.queue(), [&](Io& io) { return stack.device().flush(io); });
  if (!flushed.ok()) std::abort();
  if (close && !stack.device().close(stack.queue()).ok()) std::abort();
  stack.kill();
  disks.layers.back()->forget_submitter();
  disks.layers.back()->complete_barrier(disks.layers.back()->submit_barrier());
}

Result<void> JobScene::run(JobRun& run) const {
  if (job_ == Job::reset) return run.reset();
  if (job_ == Job::grow) return run.grow(grown_);
  return run.merge();
}

JobScene::Length JobScene::length() {
  JobRun job(random_, trace_, shape_, disks_.clone(), 100);
  std::uint64_t calls = 0;
  job.on_call = [&](std::uint64_t number) { calls = number + 1; };
  run(job).value();
  job.queue().drain();
  return {job.queue().steps(), calls};
}

std::optional<std::string> JobScene::cut_off(std::uint64_t step, End end) {
  const Disks disks = disks_.clone();
  std::string last;
  bool cut = false;
  {
    JobRun job(random_, trace_, shape_, disks, 100);
    job.queue().before_step = [&](std::uint64_t number) {
      if (number < step) return;
      if (!std::exchange(cut, true)) last = job.last_call();
      job.kill();
    };
    const auto result = run(job);
    if (!cut && !result) return "without a crash it fails: " + result.error().text();
    if (result && cut) return "it says that it is done, and was cut off";
    job.queue().drain();
  }
  Disks found = disks;
  if (end == End::kill) {
    forget_submitter(disks);
  } else if (end == End::power_loss) {
    found.lose_power(random_);
  } else {
    Nothing nothing;
    found.base->lose_power(nothing);
    for (const auto& layer : found.layers) layer->lose_power(nothing);
  }
  auto wrong = check(found);
  if (wrong) *wrong = fmt::format("{} cut off at step {}, after {}: {}", name_of(job_), step, last, *wrong);
  return wrong;
}

std::optional<std::string> JobScene::fail(std::uint64_t call, int error) {
  const Disks disks = disks_.clone();
  std::string failed;
  const auto tell = [&](const std::string& wrong) {
    return fmt::format("{} with an error at call {}, {}: {}", name_of(job_), call, failed, wrong);
  };
  {
    JobRun job(random_, trace_, shape_, disks, 50);
    job.fault = [&](std::uint64_t number) {
      if (number != call) return 0;
      failed = job.last_call();
      return error;
    };
    if (run(job)) return tell("it was swallowed");
    job.queue().drain();
  }
  Disks off = disks.clone();
  off.lose_power(random_);
  auto wrong = check(off);
  forget_submitter(disks);
  // After a failed barrier only what is on the disk counts.
  const auto sound = [](const auto& disk) { return !disk->barrier_failed(); };
  if (!wrong && std::ranges::all_of(disks.layers, sound) && sound(disks.base)) wrong = check(disks);
  if (wrong) return tell(*wrong);
  return std::nullopt;
}

std::optional<std::vector<std::byte>> JobScene::read(const Disks& disks, std::string& why) {
  // Reading may recover it first; what is looked at stays as it is.
  const Disks copy = disks.clone();
  Shape shape = shape_;
  Stack stack(random_, trace_, shape);
  if (auto opened = stack.open(copy, false, 0); !opened) {
    why = opened.error().text();
    return std::nullopt;
  }
  std::vector<std::byte> bytes(stack.device().size());
  const IoStatus status =
      run_blocking(stack.queue(), [&](Io& io) { return stack.device().read(io, 0, bytes); });
  if (status.ok()) return bytes;
  why = fmt::format("it can't be read: error {}", status.error_number());
  return std::nullopt;
}

std::optional<std::string> JobScene::expect(const Disks& found, const std::vector<std::byte>& content,
                                            const char* what) {
  std::string why;
  auto bytes = read(found, why);
  if (!bytes) return fmt::format("{}: {}", what, why);
  if (bytes->size() < content.size()) return fmt::format("{}: it has {} bytes", what, bytes->size());
  const auto [first, second] = std::ranges::mismatch(content, *bytes);
  if (first != content.end()) return fmt::format("{}: byte {} differs", what, first - content.begin());
  if (std::ranges::any_of(second, bytes->end(), [](std::byte each) { return each != std::byte{0}; }))
    return fmt::format("{}: what it was extended by is not zeros", what);
  return std::nullopt;
}

std::optional<std::string> JobScene::check(const Disks& found) {
  const auto superblock = superblock_of(found.layers.back());
  if (!superblock) return superblock.error().text();
  if (job_ == Job::reset) return check_reset(found, *superblock);
  if (job_ == Job::grow) return check_grown(found, *superblock);
  return check_merged(found, *superblock);
}

std::optional<std::string> JobScene::check_reset(const Disks& found, const native::Superblock& superblock) {
  Disks lower = found;
  lower.layers.pop_back();
  if (auto wrong = expect(
          lower, std::vector(base_.begin(), base_.begin() + static_cast<std::ptrdiff_t>(shape_.base_bytes)),
          "the base")) {
    return wrong;
  }
  const bool done = superblock.absent_before != superblock_.absent_before;
  if (auto wrong = expect(found, done ? base_ : content_, done ? "reset" : "not reset")) return wrong;
  return check_usable(found);
}

std::optional<std::string> JobScene::check_grown(const Disks& found, const native::Superblock& superblock) {
  if (superblock.size != k_device_bytes && superblock.size != grown_) {
    return fmt::format("its size is {}", superblock.size);
  }
  if (auto wrong = expect(found, content_, superblock.size == grown_ ? "grown" : "not grown")) return wrong;
  return check_usable(found);
}

std::optional<std::string> JobScene::check_merged(const Disks& found, const native::Superblock& superblock) {
  if (is_merging(superblock)) {
    std::string why;
    if (read(found, why)) return "a layer whose merge is not finished can be opened";
    if (why.find(k_merging_reason) == std::string::npos) return why;
    return resume(found);
  }
  if (auto wrong = expect(found, content_, "the layer")) return wrong;
  if (auto wrong = check_base_fits(found)) return wrong;
  Disks lower = found;
  lower.layers.pop_back();
  const bool done = superblock.absent_before != superblock_.absent_before;
  if (done) {
    if (auto wrong = expect(lower, content_, "the merged base")) return wrong;
    return check_usable(found);
  }
  return resume(found);
}

// Merges once more, now and then with a crash on the way, until that is done.
std::optional<std::string> JobScene::resume(const Disks& found) {
  Disks disks = found.clone();
  const std::uint64_t crash_at = random_.chance(50) ? random_.below(150) : UINT64_MAX;
  for (const std::uint64_t step : {crash_at, UINT64_MAX}) {
    JobRun job(random_, trace_, shape_, disks, 60);
    job.queue().before_step = [&](std::uint64_t number) {
      if (number >= step) job.kill();
    };
    const auto result = job.merge();
    job.queue().drain();
    if (result) break;
    if (step == UINT64_MAX) return "it can't be resumed: " + result.error().text();
    disks.lose_power(random_);
  }
  disks.lose_power(random_);
  if (auto wrong = expect(disks, content_, "the layer after resuming")) return wrong;
  if (auto wrong = check_base_fits(disks)) return wrong;
  Disks lower = disks;
  lower.layers.pop_back();
  if (auto wrong = expect(lower, content_, "the base after resuming")) return wrong;
  return check_usable(disks);
}

// A layer that anybody may open is over the base that it has recorded.
std::optional<std::string> JobScene::check_base_fits(const Disks& found) {
  const native::Superblock superblock = superblock_of(found.layers.back()).value();
  native::BaseRecord base{};
  if (wanted_.layer_below) {
    const native::Superblock below = superblock_of(found.layers.front()).value();
    if (below.state != native::LayerState::clean) return "the base was not closed cleanly";
    base = base_record(below);
  } else {
    sim::SimQueue queue(random_, trace_);
    sim::SimStore store(queue, found.base, {.pending_percent = 0});
    base.kind = native::BaseKind::raw;
    base.size = store.size();
    base.samples = sample_base(queue, store, superblock.uuid).value();
  }
  const std::string why = base_difference(superblock.base, base, false);
  return why.empty() ? std::nullopt : std::optional("its base would be refused: " + why);
}

// A session on what was found: what it writes and flushes is there after a power loss, and all else stays.
std::optional<std::string> JobScene::check_usable(const Disks& found) {
  const Disks disks = found.clone();
  std::string why;
  auto content = read(disks, why);
  if (!content) return why;
  std::vector<std::byte> bytes(3 * k_sector_bytes);
  fill(random_, bytes);
  const std::uint64_t at = random_.below(content->size() / k_sector_bytes - 3) * k_sector_bytes;
  {
    Shape shape = shape_;
    Stack stack(random_, trace_, shape);
    if (auto opened = stack.open(disks, true, 50); !opened) return opened.error().text();
    const IoStatus written = run_blocking(
        stack.queue(), [&](Io& io) { return stack.device().write(io, at, bytes, Durability::with_flush); });
    const IoStatus flushed = run_blocking(stack.queue(), [&](Io& io) { return stack.device().flush(io); });
    if (!written.ok() || !flushed.ok()) return "it can't be written afterwards";
    stack.kill();
  }
  std::ranges::copy(bytes, content->begin() + static_cast<std::ptrdiff_t>(at));
  Disks off = disks;
  off.lose_power(random_);
  return expect(off, *content, "after writing to it");
}

}  // namespace oxbow::crash
