// SPDX-License-Identifier: Apache-2.0
#include "targets/table/table_target.h"

#include <algorithm>

namespace oxbow {

TableTarget::TableTarget(std::vector<Part> parts) {
  for (Part& part : parts) {
    const std::uint64_t start = part.line.start * k_sector_bytes;
    parts_.push_back(
        {start, start + part.line.length * k_sector_bytes, part.made.offset, part.made.target.get()});
    writable_ = writable_ && part.made.target->writable();
    lines_.push_back(std::move(part.line));
    if (std::ranges::find(targets_, part.made.target) == targets_.end()) targets_.push_back(part.made.target);
  }
}

std::size_t TableTarget::index_of(std::uint64_t offset) const noexcept {
  const auto after = std::ranges::upper_bound(parts_, offset, {}, &Placed::start);
  return static_cast<std::size_t>(after - parts_.begin()) - 1;
}

Step TableTarget::locate(Range range, Extents& out) const noexcept {
  std::uint64_t done = 0;
  for (std::size_t i = index_of(range.offset); done < range.length && !out.full(); ++i) {
    const Placed& part = parts_[i];
    const std::uint64_t at = range.offset + done;
    const Range clipped{part.offset + (at - part.start), std::min(part.end - at, range.length - done)};
    const Step step = part.target->locate(clipped, out);
    if (step.answer != Answer::ready) {
      if (done == 0) return step;
      break;  // what is known is an answer; the caller comes back for the rest
    }
    done += step.length;
    if (step.length < clipped.length) break;
  }
  return Step::ready(done);
}

Step TableTarget::plan(Range range, const Change& change, Plan& plan) noexcept {
  const Placed& part = parts_[index_of(range.offset)];
  const Range clipped{part.offset + (range.offset - part.start),
                      std::min(part.end - range.offset, range.length)};
  return part.target->plan(clipped, change, plan);
}

bool TableTarget::zeroes_fast(Range range, bool allocate) noexcept {
  for (std::size_t i = index_of(range.offset); !range.empty(); ++i) {
    const Placed& part = parts_[i];
    const Range clipped = range.prefix(part.end - range.offset);
    const Range there{part.offset + (clipped.offset - part.start), clipped.length};
    if (!part.target->zeroes_fast(there, allocate)) return false;
    range = range.without_prefix(clipped.length);
  }
  return true;
}

void TableTarget::commit(Plan& /*plan*/) noexcept {}

void TableTarget::capture(FlushPlan& plan) noexcept {
  for (const auto& target : targets_) target->capture(plan);
}

Step TableTarget::chore() noexcept {
  for (const auto& target : targets_) {
    const Step step = target->chore();
    if (step.answer == Answer::prepare) return step;
  }
  return Step::ready(0);
}

void TableTarget::failed() noexcept {
  for (const auto& target : targets_) target->failed();
}

bool TableTarget::untidy() const noexcept {
  return std::ranges::any_of(targets_, [](const auto& target) { return target->untidy(); });
}

IoStatus TableTarget::each(IoStatus (Target::*operation)(Queue&) noexcept, Queue& queue) noexcept {
  IoStatus first;
  for (const auto& target : targets_) {
    const IoStatus status = (target.get()->*operation)(queue);
    if (first.ok()) first = status;
  }
  return first;
}

IoStatus TableTarget::tidy_up(Queue& queue) noexcept { return each(&Target::tidy_up, queue); }

IoStatus TableTarget::close(Queue& queue) noexcept { return each(&Target::close, queue); }

TargetStatus TableTarget::status() const { return {"table", "", print_table(lines_)}; }

std::vector<TargetLine> TableTarget::lines() const {
  std::vector<TargetLine> all;
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    TargetLine line{.start = lines_[i].start, .length = lines_[i].length};
    // The target may have other arguments: lines share one.
    line.status = {lines_[i].type, parts_[i].target->status().info, print_arguments(lines_[i])};
    parts_[i].target->describe(line.chain);
    all.push_back(std::move(line));
  }
  return all;
}

Result<std::shared_ptr<Target>> load_table(OpenContext& context, std::string_view text,
                                           std::string_view source) {
  auto lines = parse_table(text, source);
  if (!lines) return std::unexpected(lines.error());
  std::vector<TableTarget::Part> parts;
  for (TableLine& line : *lines) {
    auto made = make_target(context, line.type, line.args, line.length * k_sector_bytes);
    if (!made) {
      return std::unexpected(
          Error("cannot load table", table_place(source, line.number), made.error().text()));
    }
    line.args = lasting_arguments(line.type, std::move(line.args));
    parts.push_back({std::move(line), std::move(*made)});
  }
  return std::make_shared<TableTarget>(std::move(parts));
}

}  // namespace oxbow
