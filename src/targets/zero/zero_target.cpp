// SPDX-License-Identifier: Apache-2.0
#include "targets/zero/zero_target.h"

#include "targets/argument.h"

namespace oxbow {

Step ZeroTarget::locate(Range range, Extents& out) const noexcept {
  out.push_back({range.length, Kind::zero, 0, nullptr, 0});
  return Step::ready(range.length);
}

// Nothing is stored, so nothing is left to be made durable.
Step ZeroTarget::plan(Range range, const Change& /*change*/, Plan& plan) noexcept {
  plan.durable_alone = true;
  return Step::ready(range.length);
}

void ZeroTarget::commit(Plan& /*plan*/) noexcept {}
void ZeroTarget::capture(FlushPlan& /*plan*/) noexcept {}
TargetStatus ZeroTarget::status() const { return {"zero", "", ""}; }

Result<MadeTarget> make_zero_target(OpenContext& context, std::span<const std::string> args,
                                    std::uint64_t length_bytes) {
  if (!args.empty()) {
    return std::unexpected(
        Error("cannot make target zero", escape_argument(args.front()), "it takes no arguments"));
  }
  return MadeTarget{std::make_shared<ZeroTarget>(length_bytes, context.writable)};
}

}  // namespace oxbow
