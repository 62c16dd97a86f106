// SPDX-License-Identifier: Apache-2.0
// Every step writes only what nothing relies on: a copy that is bad beside one that is good, a slot that is damaged.
// So it may be cut off anywhere. The order: what the flush records prove, while they still do; recovery, which
// replaces them; then what is stored twice; then what the user gave up.
#include "jobs/repair_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "formats/native/codec.h"
#include "jobs/check_parts.h"
#include "stores/blocking.h"
#include "targets/cow/holder.h"

namespace oxbow {
namespace {

using native::SlotState;

constexpr auto k_what = "cannot repair layer";

// What is known of a damaged page. Thread safety: a value.
struct BadPage {
  PageVerdict verdict;
  std::array<native::StatePage, 2> slots;
};

// One repair. Thread safety: none.
class Repair {
 public:
  Repair(Queue& queue, Store& layer, const RepairOptions& options, RepairReport& report)
      : queue_(queue), layer_(layer), options_(options), report_(report) {}

  [[nodiscard]] Result<void> run();

 private:
  [[nodiscard]] Error failed(IoStatus status) const {
    return Error::from_errno(k_what, layer_.describe(), status.error_number());
  }
  [[nodiscard]] Error refused(std::string why) const { return {k_what, layer_.describe(), std::move(why)}; }
  [[nodiscard]] Result<void> look();
  [[nodiscard]] Result<void> check_options() const;
  [[nodiscard]] Result<void> begin_writing();
  [[nodiscard]] Result<void> write(std::uint64_t at, std::span<const std::byte> bytes);
  [[nodiscard]] Result<void> empty_slot(std::uint64_t page, std::uint32_t slot);
  [[nodiscard]] bool mendable(std::string_view where) const;
  [[nodiscard]] Result<void> mend_length();
  [[nodiscard]] Result<void> mend_proven_pages();
  [[nodiscard]] Result<void> cut_ring();
  [[nodiscard]] Result<void> recover();
  [[nodiscard]] Result<void> mend_superblocks();
  [[nodiscard]] Result<void> mend_records();
  [[nodiscard]] Result<void> write_empty_record(std::uint32_t slot, std::uint64_t number);
  [[nodiscard]] Result<void> grow_epoch();
  [[nodiscard]] Result<void> accept_older(std::uint64_t page);
  [[nodiscard]] Result<void> drop(std::uint64_t page);
  [[nodiscard]] Result<void> give_up_pages();
  void did(std::string where, std::string what, std::vector<Range> lost = {}) {
    report_.steps.push_back({std::move(where), std::move(what), std::move(lost)});
  }

  Queue& queue_;
  Store& layer_;
  const RepairOptions& options_;
  RepairReport& report_;
  RawHead raw_;
  CheckReport now_;
  PageFacts facts_;
  std::map<std::uint64_t, BadPage> bad_pages_;
  bool written_ = false;
};

// Everything as it is now.
Result<void> Repair::look() {
  auto checked = check_layer(queue_, layer_);
  if (!checked) return std::unexpected(checked.error());
  now_ = std::move(*checked);
  auto raw = read_raw_head(queue_, layer_);
  if (!raw) return std::unexpected(raw.error());
  raw_ = std::move(*raw);
  facts_ = {};
  bad_pages_.clear();
  if (raw_.unusable || !raw_.metadata_there) return {};
  std::vector<Finding> ignored;
  return scan_pages(queue_, layer_, raw_.head.superblock,
                    [&](std::uint64_t index, const PageSlots& slots) -> Result<void> {
                      PageVerdict verdict = judge_page(index, slots, raw_);
                      check_page(index, slots, verdict, raw_, facts_, ignored);
                      if (verdict.content.damaged) bad_pages_[index] = {std::move(verdict), slots.pages};
                      return {};
                    });
}

Result<void> Repair::check_options() const {
  const auto ring_is_damaged = [](const Finding& each) {
    return each.where == "commit ring" && each.gravity == Gravity::damage;
  };
  if (options_.drop_ring && std::ranges::none_of(now_.findings, ring_is_damaged))
    return std::unexpected(refused("its commit ring is not damaged"));
  for (const auto* pages : {&options_.accept_older, &options_.drop}) {
    for (const std::uint64_t page : *pages) {
      const auto found = bad_pages_.find(page);
      if (found == bad_pages_.end())
        return std::unexpected(refused(fmt::format("state page {} is not damaged", page)));
      if (pages == &options_.accept_older && !found->second.verdict.whole) {
        return std::unexpected(refused(
            fmt::format("state page {} has no slot that is whole, so there is none to accept", page)));
      }
    }
  }
  for (const std::uint64_t page : options_.accept_older) {
    if (std::ranges::count(options_.accept_older, page) + std::ranges::count(options_.drop, page) > 1)
      return std::unexpected(refused(fmt::format("state page {} is named twice", page)));
  }
  return {};
}

// Before the first write: what a kill left in the cache is what is repaired.
Result<void> Repair::begin_writing() {
  if (std::exchange(written_, true)) return {};
  const IoStatus synced = sync_blocking(queue_, layer_);
  if (!synced.ok()) return std::unexpected(failed(synced));
  return write_holder(queue_, layer_, raw_.head.superblock.holder_offset);
}

// With a barrier after it. Nothing in a dry run.
Result<void> Repair::write(std::uint64_t at, std::span<const std::byte> bytes) {
  if (options_.dry_run) return {};
  if (auto begun = begin_writing(); !begun) return begun;
  const IoStatus written = write_blocking(queue_, layer_, at, bytes);
  if (!written.ok()) return std::unexpected(failed(written));
  const IoStatus synced = sync_blocking(queue_, layer_);
  if (!synced.ok()) return std::unexpected(failed(synced));
  return {};
}

Result<void> Repair::empty_slot(std::uint64_t page, std::uint32_t slot) {
  const native::StatePage zeros{};
  return write(native::slot_at(raw_.head.superblock, slot, page), std::as_bytes(std::span(&zeros, 1)));
}

bool Repair::mendable(std::string_view where) const {
  return std::ranges::any_of(now_.findings,
                             [&](const Finding& each) { return each.where == where && each.mendable; });
}

// A file that was cut short where no data was.
Result<void> Repair::mend_length() {
  if (!mendable("file")) return {};
  did("file", "given its full length again; no data was in what was missing");
  if (options_.dry_run) return {};
  const std::uint64_t length = native::file_bytes(raw_.head.superblock);
  const IoStatus grown = run_blocking(queue_, [&](Io& io) { return layer_.grow(io, length); });
  if (!grown.ok()) return std::unexpected(failed(grown));
  const IoStatus synced = sync_blocking(queue_, layer_);
  if (!synced.ok()) return std::unexpected(failed(synced));
  return look();
}

Result<void> Repair::mend_proven_pages() {
  const auto proven = [](const auto& each) { return each.second.verdict.proven.has_value(); };
  if (std::ranges::none_of(bad_pages_, proven)) return {};
  for (const auto& [page, bad] : bad_pages_) {
    if (!bad.verdict.proven) continue;
    const std::uint32_t slot = *bad.verdict.proven;
    did(fmt::format("state page {} slot {}", page, 1 - slot),
        fmt::format("emptied; slot {} (epoch {}, flush {}) is the newest, as the flush records prove", slot,
                    bad.slots[slot].epoch, bad.slots[slot].flush_number));
    if (auto emptied = empty_slot(page, 1 - slot); !emptied) return emptied;
  }
  if (!options_.dry_run) return look();
  std::erase_if(bad_pages_, proven);
  return {};
}

// The last record first: what is left always ends where it ended, or is told to be damaged.
Result<void> Repair::cut_ring() {
  if (!options_.drop_ring) return {};
  const auto ring = judge_ring(queue_, layer_, raw_, facts_);
  if (!ring) return std::unexpected(ring.error());
  std::vector<Range> lost;
  for (const LaterRecord& each : ring->beyond)
    lost.insert(lost.end(), each.ranges.begin(), each.ranges.end());
  did("commit ring",
      fmt::format("cut off behind sequence {}; {} records are given up, and the damaged one",
                  ring->last_sound, ring->beyond.size()),
      std::move(lost));
  const std::array<std::byte, native::k_ring_align_bytes> zeros{};
  for (auto each = ring->beyond.rbegin(); each != ring->beyond.rend(); ++each) {
    const std::uint64_t at = raw_.head.superblock.ring_offset + each->position;
    if (auto written = write(at, zeros); !written) return written;
  }
  return options_.dry_run ? Result<void>{} : look();
}

Result<void> Repair::recover() {
  if (!raw_.in_use() || !options_.recover) return {};
  if (options_.dry_run) {
    did("layer", "recovered from its unclean end, and closed");
    return {};
  }
  if (auto recovered = options_.recover(); !recovered) {
    report_.not_recovered = recovered.error();
    return {};
  }
  written_ = true;  // and who did is noted
  did("layer", "recovered from its unclean end, and closed");
  return look();
}

Result<void> Repair::mend_superblocks() {
  for (std::uint32_t copy = 0; copy < 2; ++copy) {
    const std::string where = fmt::format("superblock copy {}", copy);
    if (copy == raw_.newer_copy || !mendable(where)) continue;
    did(where, fmt::format("written again from copy {}", raw_.newer_copy));
    native::Superblock superblock = raw_.head.superblock;
    superblock.copy = copy;
    native::seal(superblock);
    if (auto written = write(copy_offset(copy), std::as_bytes(std::span(&superblock, 1))); !written)
      return written;
  }
  return {};
}

Result<void> Repair::write_empty_record(std::uint32_t slot, std::uint64_t number) {
  did(fmt::format("flush record {}", slot),
      fmt::format("written again: flush {}, which names no page", number));
  native::FlushRecord record{};
  record.magic = native::k_record_magic;
  record.epoch = raw_.head.superblock.epoch;
  record.flush_number = number;
  record.slot = slot;
  const native::FlushRecord* newest = raw_.newest_record();
  record.ring_seq = std::max(facts_.ring_seq, newest == nullptr ? 0 : newest->ring_seq);
  record.ring_tail = record.ring_seq;
  native::seal(record, raw_.head.superblock.salt);
  return write(raw_.head.superblock.record_offset[slot], std::as_bytes(std::span(&record, 1)));
}

// Of a layer that was closed cleanly no record says anything but numbers. An unclean one needs its records.
Result<void> Repair::mend_records() {
  if (raw_.in_use()) return {};
  const native::FlushRecord* newest = raw_.newest_record();
  std::uint64_t number = newest != nullptr ? newest->flush_number : facts_.newest_flush;
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    if (!mendable(fmt::format("flush record {}", slot))) continue;
    if (auto written = write_empty_record(slot, ++number); !written) return written;
  }
  return {};
}

// What layers over this one see changes: they have to notice.
Result<void> Repair::grow_epoch() {
  if (options_.dry_run) return {};
  if (auto begun = begin_writing(); !begun) return begun;
  auto head = read_layer_head(queue_, layer_);
  if (!head) return std::unexpected(head.error());
  native::Superblock superblock = head->superblock;
  ++superblock.sequence;
  ++superblock.epoch;
  const IoStatus written = write_superblocks(queue_, layer_, superblock, head->stale_copy);
  if (!written.ok()) return std::unexpected(failed(written));
  return {};
}

Result<void> Repair::accept_older(std::uint64_t page) {
  const BadPage& bad = bad_pages_.at(page);
  const std::uint32_t slot = *bad.verdict.whole;
  did(fmt::format("state page {}", page),
      fmt::format(
          "slot {} (epoch {}, flush {}) accepted; what later flushes changed is lost where they wrote to "
          "clusters of this page for the first time, zeroed or discarded them",
          slot, bad.slots[slot].epoch, bad.slots[slot].flush_number),
      {governed_by(page, raw_.head.superblock)});
  return empty_slot(page, 1 - slot);
}

Result<void> Repair::drop(std::uint64_t page) {
  const native::Superblock& s = raw_.head.superblock;
  const Range governed = governed_by(page, s);
  did(fmt::format("state page {}", page), "given up; the base shows through again", {governed});
  // A slot that is whole goes first, so that it is never taken for the page by mistake.
  const std::uint32_t first = bad_pages_.at(page).verdict.whole.value_or(0);
  for (const std::uint32_t slot : {first, 1 - first}) {
    if (auto emptied = empty_slot(page, slot); !emptied) return emptied;
  }
  if (options_.dry_run || governed.empty()) return {};
  const std::uint64_t clusters = native::cluster_count(governed.length, s.cluster_shift);
  const Range data{s.data_offset + governed.offset, clusters << s.cluster_shift};
  const IoStatus punched = run_blocking(queue_, [&](Io& io) { return layer_.discard(io, data); });
  if (!punched.ok()) return std::unexpected(failed(punched));
  return {};
}

Result<void> Repair::give_up_pages() {
  std::vector<std::uint64_t> pages = options_.accept_older;
  pages.insert(pages.end(), options_.drop.begin(), options_.drop.end());
  std::erase_if(pages, [&](std::uint64_t page) { return !bad_pages_.contains(page); });  // mended meanwhile
  if (pages.empty()) return {};
  if (raw_.in_use() && !options_.dry_run)
    return std::unexpected(refused("it was not closed cleanly, and pages are given up only when it was"));
  if (auto grown = grow_epoch(); !grown) return grown;
  for (const std::uint64_t page : pages) {
    const bool older = std::ranges::find(options_.accept_older, page) != options_.accept_older.end();
    auto done = older ? accept_older(page) : drop(page);
    if (!done) return done;
  }
  return {};
}

Result<void> Repair::run() {
  if (auto seen = look(); !seen) return seen;
  report_.before = now_;
  if (raw_.unusable) return {};
  if (!raw_.metadata_there) return {};
  if (auto checked = check_options(); !checked) return checked;
  for (const auto step :
       {&Repair::mend_length, &Repair::mend_proven_pages, &Repair::cut_ring, &Repair::recover,
        &Repair::mend_superblocks, &Repair::mend_records, &Repair::give_up_pages}) {
    if (auto done = (this->*step)(); !done) return done;
  }
  if (mendable("holder")) {
    const bool noted = written_;
    if (!options_.dry_run) {
      if (auto begun = begin_writing(); !begun) return begun;
    }
    if (!noted) did("holder", "written again");
  }
  return {};
}

// What a dry run would leave.
std::vector<Finding> left_over(const RepairReport& report, const RepairOptions& options) {
  std::vector<Finding> left = report.before.findings;
  std::erase_if(left, [&](const Finding& each) {
    const auto named = [&](const std::vector<std::uint64_t>& pages) {
      return each.page && std::ranges::find(pages, *each.page) != pages.end();
    };
    const bool recovered = each.gravity == Gravity::note && options.recover != nullptr;
    const bool cut = options.drop_ring && each.where == "commit ring";
    return each.mendable || recovered || cut || named(options.accept_older) || named(options.drop);
  });
  return left;
}

}  // namespace

bool RepairReport::sound() const noexcept {
  const auto is_note = [](const Finding& each) { return each.gravity == Gravity::note; };
  return !before.unusable && !not_recovered && std::ranges::all_of(left, is_note);
}

Result<RepairReport> repair_layer(Queue& queue, Store& layer, const RepairOptions& options) {
  RepairReport report;
  Repair repair(queue, layer, options, report);
  if (auto done = repair.run(); !done) return std::unexpected(done.error());
  if (options.dry_run || report.before.unusable) {
    report.left = left_over(report, options);
    return report;
  }
  auto after = check_layer(queue, layer);
  if (!after) return std::unexpected(after.error());
  report.left = std::move(after->findings);
  return report;
}

}  // namespace oxbow
