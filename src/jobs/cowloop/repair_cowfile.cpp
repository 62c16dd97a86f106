// SPDX-License-Identifier: Apache-2.0
#include "jobs/cowloop/repair_cowfile.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "jobs/cowloop/open_cowfile.h"
#include "jobs/cowloop/scan_blocks.h"
#include "os/boot_id.h"
#include "stores/blocking.h"
#include "targets/cowloop/bitmap_survey.h"
#include "targets/cowloop/cowloop_live.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::cowloop {
namespace {

constexpr const char* k_what = "cannot repair cowfile";

// Thread safety: none.
class Repair {
 public:
  Repair(Queue& queue, Store& cowfile, const RepairCowfile& options)
      : queue_(queue), cowfile_(cowfile), options_(options) {}

  [[nodiscard]] Result<CowfileRepair> run() {
    const auto head = read_head(queue_, k_what, cowfile_);
    if (!head) return std::unexpected(head.error());
    report_.before = report_.after = *head;
    if (auto checked = check_repairable(); !checked) return std::unexpected(checked.error());
    if (!report_.needed) {
      // The clean head of a repair that was cut off may be in the page cache alone.
      if (auto synced = options_.dry_run ? Result<void>{} : sync(); !synced)
        return std::unexpected(synced.error());
      return report_;
    }
    for (const auto step :
         {&Repair::begin, &Repair::mend_bitmap, &Repair::mark_blocks, &Repair::add_blocks, &Repair::finish}) {
      if (auto done = (this->*step)(); !done) return std::unexpected(done.error());
    }
    return report_;
  }

 private:
  [[nodiscard]] std::unexpected<Error> refuse(std::string why) const {
    return std::unexpected(Error(k_what, cowfile_.describe(), std::move(why)));
  }
  [[nodiscard]] Result<void> outcome(IoStatus status) const {
    if (status.ok()) return {};
    return std::unexpected(Error::from_errno(k_what, cowfile_.describe(), status.error_number()));
  }
  [[nodiscard]] Result<void> sync() { return outcome(sync_blocking(queue_, cowfile_)); }
  [[nodiscard]] Result<void> grow(std::uint64_t size) {
    if (options_.dry_run || size <= cowfile_.size()) return {};
    return outcome(run_blocking(queue_, [&](Io& io) { return cowfile_.grow(io, size); }));
  }
  [[nodiscard]] Result<void> check_repairable();
  [[nodiscard]] Result<void> begin();
  [[nodiscard]] Result<void> mend_bitmap();
  [[nodiscard]] Result<void> mark_blocks();
  [[nodiscard]] Result<void> mark(Range blocks);
  [[nodiscard]] Result<void> add_blocks();
  [[nodiscard]] Result<void> finish();

  Queue& queue_;
  Store& cowfile_;
  const RepairCowfile& options_;
  CowfileRepair report_;
  std::uint64_t file_bytes_ = 0;  // before
};

Result<void> Repair::check_repairable() {
  const Head& head = report_.before;
  if (head.packed) return refuse("it is packed, and can't be repaired so: oxbow unpack comes first");
  if (head.merging)
    return refuse(
        "a merge into its read-only file was begun and is not finished: resume it with oxbow merge");
  file_bytes_ = cowfile_.size();
  report_.needed = head.dirty || options_.force;
  if (options_.force) return {};
  if (names_live(head, boot_id()))
    return refuse(
        "a process that had it open was killed, and what it had written may be newer than the file: serving "
        "it goes on "
        "with that; --force takes the file as it is");
  if (head.dirty) return {};
  Result<void> sound = check_length(k_what, cowfile_, head);
  if (sound) {
    const auto survey = survey_bitmap(queue_, k_what, cowfile_, head);
    if (!survey) return std::unexpected(survey.error());
    if (const auto why = contradiction(*survey, head, file_bytes_))
      sound = std::unexpected(Error(k_what, cowfile_.describe(), *why));
  }
  return sound ? sound : refuse("it is not dirty, but " + sound.error().why() + ": --force repairs it");
}

// From here to the end it is dirty, and with a number of blocks that nobody takes for the mark of one in order.
Result<void> Repair::begin() {
  const Head& before = report_.before;
  if (options_.dry_run || (before.dirty && !(before.kept_in_order() && options_.force))) return {};
  Head head = before;
  head.dirty = true;
  if (head.used_blocks == k_in_order) head.used_blocks = 0;
  if (auto written = write_head(queue_, k_what, cowfile_, head); !written) return written;
  return sync();
}

// All of it is there, and nothing is set behind the last block.
Result<void> Repair::mend_bitmap() {
  const Head& head = report_.before;
  const std::uint64_t end = k_bitmap_at + head.map_bytes;
  report_.bitmap_added = end - std::min(end, std::max(file_bytes_, k_bitmap_at));
  if (auto grown = grow(end); !grown) return grown;
  std::array<std::byte, k_block_bytes> last{};  // the part that the last block's bit is in
  const std::uint64_t at = end - last.size();
  const std::uint64_t first_block = (at - k_bitmap_at) * 8;
  if (const IoStatus read = read_or_zeros(queue_, cowfile_, at, last); !read.ok()) return outcome(read);
  for (std::uint64_t i = head.base_blocks - first_block; i < last.size() * 8; ++i) {
    if (!is_set(last, i)) continue;
    last[i / 8] &= ~(std::byte{1} << (i % 8));
    ++report_.cleared;
  }
  if (report_.cleared == 0 || options_.dry_run) return {};
  return outcome(write_blocking(queue_, cowfile_, at, last));
}

// One that was kept in order lacks none.
Result<void> Repair::mark_blocks() {
  if (report_.before.kept_in_order() && !options_.force) return {};
  return scan_blocks(queue_, cowfile_, report_.before, {.what = k_what, .progress = options_.progress},
                     [&](Range blocks) -> Result<void> {
                       report_.corrected += blocks.length;
                       if (options_.on_corrected) options_.on_corrected(blocks);
                       return options_.dry_run ? Result<void>{} : mark(blocks);
                     });
}

Result<void> Repair::mark(Range blocks) {
  const std::uint64_t first = blocks.offset / 8;
  std::vector<std::byte> bits(((blocks.end() - 1) / 8) - first + 1);
  if (const IoStatus read = read_blocking(queue_, cowfile_, k_bitmap_at + first, bits); !read.ok())
    return outcome(read);
  for (std::uint64_t block = blocks.offset; block < blocks.end(); ++block) set(bits, block - (first * 8));
  return outcome(write_blocking(queue_, cowfile_, k_bitmap_at + first, bits));
}

// Blocks that are marked have to be there to be read.
Result<void> Repair::add_blocks() {
  const Head& head = report_.before;
  const auto survey = survey_bitmap(queue_, k_what, cowfile_, head);
  if (!survey) return std::unexpected(survey.error());
  report_.after = fresh_head(head.layout, head.base_blocks, head.fingerprint);
  report_.after.used_blocks = survey->used + (options_.dry_run ? report_.corrected : 0);
  if (!survey->missing) return {};
  report_.blocks_added = survey->missing_count;
  std::uint64_t end = 0;
  const auto found = for_each_run(queue_, k_what, cowfile_, head, [&](Range run) -> Result<void> {
    end = block_at(head, std::min(run.end(), head.base_blocks));
    return {};
  });
  return found ? grow(end) : found;
}

Result<void> Repair::finish() {
  if (options_.dry_run) return {};
  if (auto synced = sync(); !synced) return synced;
  if (auto written = write_head(queue_, k_what, cowfile_, report_.after); !written) return written;
  return sync();
}

}  // namespace

Result<CowfileRepair> repair_cowfile(Queue& queue, Store& cowfile, const RepairCowfile& options) {
  return Repair(queue, cowfile, options).run();
}

Result<CowfileRepair> repair_cowfile(Queue& queue, const std::string& path, const RepairCowfile& options) {
  const auto opened = open_cowfile(queue, k_what, path, options.dry_run ? Use::read : Use::write);
  if (!opened) return std::unexpected(opened.error());
  return repair_cowfile(queue, *opened->store, options);
}

}  // namespace oxbow::cowloop
