// SPDX-License-Identifier: Apache-2.0
#include "crash/cowfile_scene.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "formats/cowloop/testing/cowfile_bytes.h"
#include "jobs/cowloop/merge_cowfile.h"
#include "jobs/cowloop/repair_cowfile.h"
#include "stores/blocking.h"
#include "targets/cowloop/bitmap_survey.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::crash {
namespace {

using cowloop::Head;
using cowloop::k_block_bytes;
using sim::SimDisk;
using sim::SimQueue;
using sim::SimStore;

// Keeps nothing that isn't durable. Thread safety: none.
class Nothing final : public sim::PowerLoss {
 public:
  [[nodiscard]] std::size_t survivor(std::uint64_t /*sector*/,
                                     std::span<const sim::OperationId> /*operations*/) override {
    return 0;
  }
};

constexpr std::uint64_t k_blocks = 61;

}  // namespace

CowfileScene::Files CowfileScene::Files::clone() const {
  return {std::make_shared<SimDisk>(*cowfile), std::make_shared<SimDisk>(*base)};
}

void CowfileScene::Files::lose_power(sim::Random& random) const {
  for (const auto& disk : {cowfile, base}) {
    sim::RandomLoss loss(random, *disk);
    disk->lose_power(loss);
  }
}

// One process that does the job: everything that a kill ends. Thread safety: none.
class CowfileScene::Run {
 public:
  Run(CowfileScene& scene, const Files& files, unsigned pending_percent)
      : scene_(scene), queue_(scene.random_, scene.trace_) {
    cowfile_ = add(files.cowfile, "cowfile", pending_percent);
    base_ = add(files.base, "base", pending_percent);
  }

  [[nodiscard]] Result<void> run() {
    const auto head = cowloop::read_head(queue_, "cannot open", *cowfile_);
    if (!head) return std::unexpected(head.error());
    if (!scene_.merges()) {
      const auto done =
          cowloop::repair_cowfile(queue_, *cowfile_, {.force = scene_.job_ == CowfileJob::forced_repair});
      return done ? Result<void>{} : std::unexpected(done.error());
    }
    if (auto checked = cowloop::check_base(queue_, "cannot open", *cowfile_, *head, *base_); !checked)
      return checked;
    return cowloop::merge_into_base(
        queue_, *cowfile_, *head, *base_,
        scene_.job_ == CowfileJob::merge ? cowloop::Afterwards::empty : cowloop::Afterwards::keep, {});
  }

  std::function<int(std::uint64_t)> fault;
  [[nodiscard]] SimQueue& queue() noexcept { return queue_; }
  [[nodiscard]] std::uint64_t calls() const noexcept { return calls_; }
  [[nodiscard]] const std::string& last_call() const noexcept { return last_call_; }
  void kill() noexcept {
    cowfile_->kill();
    base_->kill();
  }

 private:
  std::shared_ptr<SimStore> add(const std::shared_ptr<SimDisk>& disk, std::string name,
                                unsigned pending_percent) {
    auto store = std::make_shared<SimStore>(
        queue_, disk,
        SimStore::Options{
            .name = std::move(name), .pending_percent = pending_percent, .punches = scene_.shape_.punches});
    store->observe = [this, store = store.get()](const SimStore::Call& call) {
      last_call_ = fmt::format("{} {:#x}+{:#x} of {}", sim::name_of(call.kind), call.range.offset,
                               call.range.length, store->describe());
    };
    store->fault = [this](const SimStore::Call&) {
      const std::uint64_t number = calls_++;
      return fault ? fault(number) : 0;
    };
    return store;
  }

  CowfileScene& scene_;
  SimQueue queue_;
  std::shared_ptr<SimStore> cowfile_;
  std::shared_ptr<SimStore> base_;
  std::uint64_t calls_ = 0;
  std::string last_call_;
};

CowfileScene::CowfileScene(CowfileJob job, const CowfileSceneShape& shape, std::uint64_t seed)
    : job_(job), shape_(shape), random_(sim::Random::mix(seed)) {
  base_ = cowloop::testing::base_of((k_blocks * k_block_bytes) + 512);
  // Zeros in front: then a merge changes which blocks the fingerprint is of.
  std::fill_n(base_.begin(), 4 * k_block_bytes, std::byte{0});
  content_ = base_;
  content_.resize(k_blocks * k_block_bytes);
  cowloop::testing::CowfileBytes file{.wide = shape.layout == cowloop::Layout::bytes_8, .blocks = k_blocks};
  file.fingerprint = cowloop::testing::fingerprint_bytes(base_);
  const bool forced = job == CowfileJob::forced_repair;
  if (job == CowfileJob::repair) file.flags = 1;
  for (std::uint64_t block = 0; block < k_blocks; ++block) {
    if (!random_.chance(45)) continue;
    const auto value = static_cast<unsigned>(random_.below(3) == 0 ? 0 : 1 + random_.below(255));
    file.data[block] = cowloop::testing::block_of(value);
    // What is not zeros is found again.
    if (!merges() && value != 0 && random_.chance(50)) file.less_bits.push_back(block);
    std::ranges::copy(file.data[block], content_.begin() + static_cast<long>(block * k_block_bytes));
  }
  used_ = file.data.size();
  file.used = forced ? used_ - file.less_bits.size() : used_;
  if (job == CowfileJob::repair) file.used = random_.below(k_blocks);
  files_ = {disk_of(file.make()), disk_of(base_)};
}

bool CowfileScene::merges() const noexcept {
  return job_ == CowfileJob::merge || job_ == CowfileJob::merge_and_keep;
}

std::shared_ptr<SimDisk> CowfileScene::disk_of(const Bytes& bytes) {
  auto disk = std::make_shared<SimDisk>(pool_, bytes.size());
  const sim::OperationId operation = disk->begin();
  disk->put(operation, 0, bytes);
  disk->complete(operation);
  disk->complete_barrier(disk->submit_barrier());
  return disk;
}

CowfileScene::Bytes CowfileScene::bytes_of(const std::shared_ptr<SimDisk>& disk) {
  Bytes bytes(disk->size());
  disk->read({0, bytes.size()}, bytes);
  return bytes;
}

CowfileScene::Length CowfileScene::length() {
  Run run(*this, files_.clone(), 100);
  run.run().value();
  run.queue().drain();
  return {run.queue().steps(), run.calls()};
}

std::optional<std::string> CowfileScene::cut_off(std::uint64_t step, End end) {
  const Files files = files_.clone();
  std::string last;
  bool cut = false;
  {
    Run run(*this, files, 100);
    run.queue().before_step = [&](std::uint64_t number) {
      if (number < step) return;
      if (!std::exchange(cut, true)) last = run.last_call();
      run.kill();
    };
    const auto done = run.run();
    if (!cut && !done) return "without a crash it fails: " + done.error().text();
    if (cut && done) return "it says that it is done, and was cut off";
    run.queue().drain();
  }
  if (end == End::kill) {
    files.cowfile->forget_submitter();
    files.base->forget_submitter();
  } else if (end == End::power_loss) {
    files.lose_power(random_);
  } else {
    Nothing nothing;
    files.cowfile->lose_power(nothing);
    files.base->lose_power(nothing);
  }
  auto wrong = check(files);
  if (wrong) *wrong = fmt::format("cut off at step {}, after {}: {}", step, last, *wrong);
  return wrong;
}

std::optional<std::string> CowfileScene::fail(std::uint64_t call, int error) {
  const Files files = files_.clone();
  std::string failed;
  const auto tell = [&](const std::string& wrong) {
    return fmt::format("with an error at call {}, {}: {}", call, failed, wrong);
  };
  {
    Run run(*this, files, 50);
    run.fault = [&](std::uint64_t number) {
      if (number != call) return 0;
      failed = run.last_call();
      return error;
    };
    if (run.run()) return tell("it was swallowed");
    run.queue().drain();
  }
  const Files off = files.clone();
  off.lose_power(random_);
  auto wrong = check(off);
  // After a failed barrier only what is on the disk counts.
  if (!wrong && !files.cowfile->barrier_failed() && !files.base->barrier_failed()) {
    files.cowfile->forget_submitter();
    files.base->forget_submitter();
    wrong = check(files);
  }
  if (wrong) return tell(*wrong);
  return std::nullopt;
}

std::optional<CowfileScene::Bytes> CowfileScene::read(const Files& files, Head& head, std::string& why) {
  SimQueue queue(random_, trace_);
  SimStore cowfile(queue, files.cowfile, {.pending_percent = 0});
  SimStore base(queue, files.base, {.pending_percent = 0});
  const auto refuse = [&](const Error& error) {
    why = error.text();
    return std::nullopt;
  };
  const auto found = cowloop::read_head(queue, "cannot open", cowfile);
  if (!found) return refuse(found.error());
  head = *found;
  Head judged = head;
  judged.merging.reset();
  if (auto checked =
          cowloop::check_state("cannot open", cowfile, judged, cowloop::IfDirty::refuse, "repair it");
      !checked)
    return refuse(checked.error());
  if (auto checked = cowloop::check_length("cannot open", cowfile, head); !checked)
    return refuse(checked.error());
  if (auto checked = cowloop::check_bitmap(queue, "cannot open", cowfile, head); !checked)
    return refuse(checked.error());
  if (auto checked = cowloop::check_base(queue, "cannot open", cowfile, head, base); !checked)
    return refuse(checked.error());
  Bytes bytes = bytes_of(files.base);
  bytes.resize(k_blocks * k_block_bytes);
  const Bytes own = bytes_of(files.cowfile);
  const auto copied =
      cowloop::for_each_run(queue, "cannot read", cowfile, head, [&](Range run) -> Result<void> {
        std::copy_n(own.begin() + static_cast<long>(cowloop::block_at(head, run.offset)),
                    run.length * k_block_bytes,
                    bytes.begin() + static_cast<long>(run.offset * k_block_bytes));
        return {};
      });
  if (!copied) return refuse(copied.error());
  return bytes;
}

std::optional<std::string> CowfileScene::check(const Files& found) {
  return merges() ? check_merge(found) : check_repair(found);
}

// Whatever was written of it: the cowfile is sound and the pair reads as before.
std::optional<std::string> CowfileScene::check_merge(const Files& found) {
  Head head;
  std::string why;
  const auto bytes = read(found, head, why);
  if (!bytes) return why;
  if (*bytes != content_) return "the pair reads otherwise than before";
  const bool has_all = head.used_blocks == used_ || (head.dirty && head.used_blocks == cowloop::k_in_order);
  if (!has_all && (head.used_blocks != 0 || head.merging))
    return "its number of blocks is neither the old nor 0";
  if (head.merging && head.dirty && head.boot_id != cowloop::Uuid{}) return "its mark names a session";
  return again(found);
}

// It is as it was, dirty, or repaired; nothing that its bits named before is gone.
std::optional<std::string> CowfileScene::check_repair(const Files& found) {
  Head head;
  std::string why;
  const auto bytes = read(found, head, why);
  if (!bytes && !head.dirty) return why;
  if (head.dirty && head.kept_in_order()) return "it says that it was kept in order";
  if (bytes && head.used_blocks == used_ && *bytes != content_) return "repaired, it reads otherwise";
  if (bytes && head.used_blocks != used_ && job_ == CowfileJob::repair)
    return "it is clean, and not repaired";
  return again(found);
}

std::optional<std::string> CowfileScene::again(const Files& found) {
  const Files files = found.clone();
  const std::uint64_t crash_at = random_.chance(50) ? random_.below(120) : UINT64_MAX;
  for (const std::uint64_t step : {crash_at, UINT64_MAX}) {
    Run run(*this, files, 60);
    run.queue().before_step = [&](std::uint64_t number) {
      if (number >= step) run.kill();
    };
    const auto done = run.run();
    run.queue().drain();
    if (done) break;
    if (step == UINT64_MAX) return "it can't be done again: " + done.error().text();
    files.lose_power(random_);
  }
  files.lose_power(random_);
  return check_done(files);
}

std::optional<std::string> CowfileScene::check_done(const Files& files) {
  Head head;
  std::string why;
  const auto bytes = read(files, head, why);
  if (!bytes) return "once more, it is refused: " + why;
  if (*bytes != content_) return "once more, it reads otherwise";
  if (head.merging || (head.dirty && job_ != CowfileJob::merge_and_keep)) return "once more, it isn't clean";
  if (!merges())
    return head.used_blocks == used_ ? std::nullopt : std::optional("once more, blocks are missing");
  Bytes merged = bytes_of(files.base);
  if (!std::equal(base_.begin() + static_cast<long>(content_.size()), base_.end(),
                  merged.begin() + static_cast<long>(content_.size()), merged.end()))
    return "what is behind the last block was changed";
  merged.resize(content_.size());
  if (merged != content_) return "once more, the read-only file lacks something";
  if (job_ == CowfileJob::merge && head.used_blocks != 0) return "once more, the cowfile still has blocks";
  return std::nullopt;
}

}  // namespace oxbow::crash
