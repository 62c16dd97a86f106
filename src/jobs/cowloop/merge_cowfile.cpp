// SPDX-License-Identifier: Apache-2.0
#include "jobs/cowloop/merge_cowfile.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "os/canary.h"
#include "stores/blocking.h"
#include "targets/cowloop/bitmap_survey.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::cowloop {
namespace {

constexpr const char* k_what = "cannot merge cowfile";
constexpr std::uint64_t k_piece_bytes = 1 << 20;

// Thread safety: none.
class Merger {
 public:
  Merger(Queue& queue, Store& cowfile, const Head& head, Store& base, const TellProgress& progress)
      : queue_(queue),
        cowfile_(cowfile),
        head_(head),
        base_(base),
        progress_(progress),
        total_((head.dirty ? head.base_blocks : head.used_blocks) * k_block_bytes) {}

  [[nodiscard]] Result<void> run(Afterwards afterwards) {
    if (auto begun = begin(); !begun) return begun;
    const auto copied = for_each_run(queue_, k_what, cowfile_, head_, [&](Range run) { return copy(run); });
    if (!copied) return copied;
    if (canary(Canary::merge_punches_first)) {
      if (auto discarded = discard_data(); !discarded) return discarded;
    }
    if (!canary(Canary::merge_ends_early)) {
      if (auto synced = outcome(base_, sync_blocking(queue_, base_)); !synced) return synced;
    }
    return end(afterwards);
  }

 private:
  [[nodiscard]] Result<void> outcome(const Store& store, IoStatus status) const {
    if (status.ok()) return {};
    return std::unexpected(Error::from_errno(k_what, store.describe(), status.error_number()));
  }
  [[nodiscard]] Result<void> put_head() {
    if (auto written = write_head(queue_, k_what, cowfile_, head_); !written) return written;
    return outcome(cowfile_, sync_blocking(queue_, cowfile_));
  }
  // The mark of a merge that was cut off may be in the page cache alone.
  [[nodiscard]] Result<void> begin() {
    if (canary(Canary::merge_without_flag)) return {};
    if (head_.merging) return put_head();
    const auto rest = fingerprint_of_rest(queue_, k_what, base_, cowfile_, head_);
    if (!rest) return std::unexpected(rest.error());
    head_.merging = *rest;
    return put_head();
  }
  [[nodiscard]] Result<void> copy(Range blocks);
  [[nodiscard]] Result<void> copy_data(Range piece);
  [[nodiscard]] Result<void> end(Afterwards afterwards);
  [[nodiscard]] Result<void> empty();
  [[nodiscard]] Result<void> discard_data();

  Queue& queue_;
  Store& cowfile_;
  Head head_;
  Store& base_;
  const TellProgress& progress_;
  const std::uint64_t total_;
  std::uint64_t done_ = 0;
  std::vector<std::byte> buffer_;
};

Result<void> Merger::copy(Range blocks) {
  Range rest{block_at(head_, blocks.offset), blocks.length * k_block_bytes};
  while (!rest.empty()) {
    Extents extents;
    (void)cowfile_.extents(rest, extents);
    const bool hole = extents[0].kind == Kind::zero;
    const Range piece = rest.prefix(hole ? extents[0].length : std::min(extents[0].length, k_piece_bytes));
    const Range to{piece.offset - head_.data_offset, piece.length};
    if (hole) {
      const IoStatus zeroed =
          run_blocking(queue_, [&](Io& io) { return base_.zero(io, to, ZeroMode::may_punch); });
      if (!zeroed.ok()) return outcome(base_, zeroed);
    } else if (auto copied = copy_data(piece); !copied) {
      return copied;
    }
    rest = rest.without_prefix(piece.length);
    done_ += piece.length;
    if (progress_) progress_(done_, total_);
  }
  return {};
}

Result<void> Merger::copy_data(Range piece) {
  buffer_.resize(piece.length);
  if (const IoStatus read = read_blocking(queue_, cowfile_, piece.offset, buffer_); !read.ok())
    return outcome(cowfile_, read);
  return outcome(base_, write_blocking(queue_, base_, piece.offset - head_.data_offset, buffer_));
}

// The mark goes only when the fingerprint is there: they lie in two sectors, of which either may be written alone.
Result<void> Merger::end(Afterwards afterwards) {
  const auto fingerprint = fingerprint_of(queue_, k_what, base_);
  if (!fingerprint) return std::unexpected(fingerprint.error());
  head_.fingerprint = *fingerprint;
  if (auto put = put_head(); !put) return put;
  head_.merging.reset();
  if (afterwards == Afterwards::keep) return put_head();
  head_.dirty = true;
  head_.used_blocks = k_in_order;
  if (auto put = put_head(); !put) return put;
  return empty();
}

Result<void> Merger::empty() {
  const Range bitmap{k_bitmap_at, head_.map_bytes};
  auto done = outcome(
      cowfile_, run_blocking(queue_, [&](Io& io) { return cowfile_.zero(io, bitmap, ZeroMode::may_punch); }));
  if (done) done = outcome(cowfile_, sync_blocking(queue_, cowfile_));
  if (!done) return done;
  head_.dirty = false;
  head_.used_blocks = 0;
  auto put = put_head();
  return put ? discard_data() : put;
}

Result<void> Merger::discard_data() {
  if (cowfile_.size() <= head_.data_offset) return {};
  const Range data{head_.data_offset, cowfile_.size() - head_.data_offset};
  return outcome(cowfile_, run_blocking(queue_, [&](Io& io) { return cowfile_.discard(io, data); }));
}

// One that was cut off behind the second head: its blocks are in both files.
bool is_being_emptied(const Head& head) { return head.kept_in_order() && head.boot_id == Uuid{}; }

Result<std::uint64_t> check_sound(Queue& queue, Store& cowfile, const Head& head) {
  if (head.packed || (head.dirty && !is_being_emptied(head))) {
    Head other = head;
    other.merging.reset();
    if (auto checked = check_state(k_what, cowfile, other, IfDirty::refuse, "oxbow repair completes it");
        !checked)
      return std::unexpected(checked.error());
    return std::unexpected(
        Error(k_what, cowfile.describe(), "it is dirty: it was not closed; oxbow repair makes it clean"));
  }
  if (auto checked = check_length(k_what, cowfile, head); !checked) return std::unexpected(checked.error());
  const auto survey = survey_bitmap(queue, k_what, cowfile, head);
  if (!survey) return std::unexpected(survey.error());
  if (auto why = contradiction(*survey, head, cowfile.size()))
    return std::unexpected(Error(k_what, cowfile.describe(), std::move(*why)));
  return survey->used;
}

}  // namespace

Result<void> merge_into_base(Queue& queue, Store& cowfile, const Head& head, Store& base,
                             Afterwards afterwards, const TellProgress& progress) {
  return Merger(queue, cowfile, head, base, progress).run(afterwards);
}

Result<std::unique_ptr<CowfileMerge>> CowfileMerge::open(Queue& queue, const std::string& base,
                                                         const std::string& cowfile) {
  std::unique_ptr<CowfileMerge> merge(new CowfileMerge(queue));
  auto opened = open_cowfile(queue, k_what, cowfile, Use::write);
  if (!opened) return std::unexpected(opened.error());
  merge->cowfile_ = std::move(opened->store);
  merge->head_ = opened->head;
  const auto blocks = check_sound(queue, *merge->cowfile_, merge->head_);
  if (!blocks) return std::unexpected(blocks.error());
  merge->blocks_ = *blocks;
  auto file = open_base(k_what, base, Use::write);
  if (!file) return std::unexpected(file.error());
  merge->base_ = std::move(*file);
  if (auto distinct = check_distinct(k_what, *merge->cowfile_, *merge->base_); !distinct)
    return std::unexpected(distinct.error());
  if (auto checked = check_base(queue, k_what, *merge->cowfile_, merge->head_, *merge->base_); !checked)
    return std::unexpected(checked.error());
  return merge;
}

Result<void> CowfileMerge::run(Afterwards afterwards, const TellProgress& progress) {
  return merge_into_base(queue_, *cowfile_, head_, *base_, afterwards, progress);
}

}  // namespace oxbow::cowloop
