// SPDX-License-Identifier: Apache-2.0
#include "targets/error/error_target.h"

#include <cerrno>

#include "targets/argument.h"

namespace oxbow {

Step ErrorTarget::locate(Range range, Extents& out) const noexcept {
  out.push_back({range.length, Kind::error, 0, nullptr, EIO});
  return Step::ready(range.length);
}

Step ErrorTarget::plan(Range /*range*/, const Change& /*change*/, Plan& /*plan*/) noexcept {
  return Step::failed(EIO);
}

void ErrorTarget::commit(Plan& /*plan*/) noexcept {}
void ErrorTarget::capture(FlushPlan& plan) noexcept {
  if (flushes_ == Flushes::fail) plan.status = IoStatus::error(EIO);
}
TargetStatus ErrorTarget::status() const { return {"error", "", ""}; }

Result<MadeTarget> make_error_target(OpenContext& context, std::span<const std::string> args,
                                     std::uint64_t length_bytes) {
  if (!args.empty()) {
    return std::unexpected(
        Error("cannot make target error", escape_argument(args.front()), "it takes no arguments"));
  }
  return MadeTarget{std::make_shared<ErrorTarget>(length_bytes, context.writable)};
}

}  // namespace oxbow
