// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "targets/registry.h"
#include "targets/table/table_text.h"
#include "targets/target.h"

namespace oxbow {

// Several targets, one after the other. Forwards every question to the target of the line that the range starts in,
// clipped to that line; plans belong to the line's target, so that nothing comes back here for them.
// Thread safety: as every Target; immutable.
class TableTarget final : public Target {
 public:
  // A line of the table and what it maps to. Lines follow each other from 0 on; there is at least one.
  struct Part {
    TableLine line;
    MadeTarget made;
  };
  explicit TableTarget(std::vector<Part> parts);

  [[nodiscard]] Step locate(Range range, Extents& out) const noexcept override;
  [[nodiscard]] Step plan(Range range, const Change& change, Plan& plan) noexcept override;
  [[nodiscard]] bool zeroes_fast(Range range, bool allocate) noexcept override;
  void commit(Plan& plan) noexcept override;
  void capture(FlushPlan& plan) noexcept override;
  [[nodiscard]] Step chore() noexcept override;
  void failed() noexcept override;
  [[nodiscard]] bool untidy() const noexcept override;
  // Every target that is not; the first error counts.
  [[nodiscard]] IoStatus tidy_up(Queue& queue) noexcept override;
  // Closes every target; the first error counts.
  [[nodiscard]] IoStatus close(Queue& queue) noexcept override;

  [[nodiscard]] std::uint64_t size() const noexcept override { return parts_.back().end; }
  // Whether all lines are.
  [[nodiscard]] bool writable() const noexcept override { return writable_; }
  // TABLE is the whole table as text.
  [[nodiscard]] TargetStatus status() const override;
  [[nodiscard]] std::vector<TargetLine> lines() const override;
  // What the lines are made of, each once.
  [[nodiscard]] std::span<const std::shared_ptr<Target>> targets() const noexcept { return targets_; }

 private:
  struct Placed {
    std::uint64_t start;  // in bytes, like all below
    std::uint64_t end;
    std::uint64_t offset;  // where in the target
    Target* target;
  };
  [[nodiscard]] std::size_t index_of(std::uint64_t offset) const noexcept;
  // On every target, also after an error; the first one counts.
  [[nodiscard]] IoStatus each(IoStatus (Target::*operation)(Queue&) noexcept, Queue& queue) noexcept;

  std::vector<Placed> parts_;
  std::vector<TableLine> lines_;
  std::vector<std::shared_ptr<Target>> targets_;  // each once
  bool writable_ = true;
};

// The target that a table describes; `source` names the table in errors.
[[nodiscard]] Result<std::shared_ptr<Target>> load_table(OpenContext& context, std::string_view text,
                                                         std::string_view source = "table");

}  // namespace oxbow
