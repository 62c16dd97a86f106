// SPDX-License-Identifier: Apache-2.0
#include "targets/linear/linear_target.h"

#include <fmt/format.h>

#include "os/absolute_path.h"
#include "targets/argument.h"
#include "targets/linear/file_range.h"

namespace oxbow {

LinearTarget::LinearTarget(std::shared_ptr<Store> store, std::string path, Range range,
                           bool writable) noexcept
    : store_(std::move(store)), path_(std::move(path)), range_(range), writable_(writable) {}

Step LinearTarget::locate(Range range, Extents& out) const noexcept {
  out.push_back({range.length, Kind::data, 0, store_.get(), range_.offset + range.offset});
  return Step::ready(range.length);
}

Step LinearTarget::plan(Range range, const Change& change, Plan& plan) noexcept {
  const std::uint64_t at = range_.offset + range.offset;
  plan.owner = this;
  if (change.operation == Operation::discard) {
    plan.punch = {at, range.length};
    plan.punch_store = store_.get();
    return Step::ready(range.length);
  }
  const bool write = change.operation == Operation::write;
  plan.has_move = true;
  plan.move = Move{.store = store_.get(),
                   .at = at,
                   .body = range.length,
                   .from = write ? Source::payload : Source::zeros,
                   .allocate = change.allocate};
  plan.durable_alone = write;
  // What of it has room is the file system's knowledge.
  plan.fresh_bytes = write || change.allocate ? range.length : 0;
  return Step::ready(range.length);
}

bool LinearTarget::zeroes_fast(Range /*range*/, bool allocate) noexcept {
  return store_->zeroes_fast(allocate ? ZeroMode::allocate : ZeroMode::may_punch);
}

void LinearTarget::commit(Plan& /*plan*/) noexcept {}

void LinearTarget::capture(FlushPlan& plan) noexcept { plan.rounds[0].sync(*store_); }

TargetStatus LinearTarget::status() const {
  return {"linear", "", fmt::format("{} {}", escape_argument(path_), range_.offset / k_sector_bytes)};
}

void LinearTarget::describe(std::vector<ChainPart>& chain) const {
  chain.push_back({.format = "raw", .size_bytes = range_.length, .store = store_->facts()});
}

Result<MadeTarget> make_linear_target(OpenContext& context, std::span<const std::string> args,
                                      std::uint64_t length_bytes) {
  const auto arguments = parse_file_range("linear", "PATH SECTORS", args, k_sector_bytes);
  if (!arguments) return std::unexpected(arguments.error());
  const Range range{arguments->offset, length_bytes};
  auto store = open_file_range(context, "linear", arguments->path, range);
  if (!store) return std::unexpected(store.error());
  return MadeTarget{
      std::make_shared<LinearTarget>(*store, absolute_path(arguments->path), range, context.writable)};
}

}  // namespace oxbow
