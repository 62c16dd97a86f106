// SPDX-License-Identifier: Apache-2.0
#include "targets/target.h"

namespace oxbow {

void Plan::drop_claims() noexcept {
  if (!claims_held) return;
  claims_held = false;
  owner->release(*this);
}

void Plan::reset() noexcept {
  drop_claims();
  owner = nullptr;
  has_move = false;
  move = {};
  durable_alone = false;
  fresh_bytes = 0;
  claimed.clear();
  moving = {0, 0};
  punch = {};
  punch_store = nullptr;
}

// The defaults are those of a target without claims, preparations or state of its own.
bool Target::zeroes_fast(Range /*range*/, bool /*allocate*/) noexcept { return false; }
void Target::release(Plan& /*plan*/) noexcept {}
Progress Target::wait(Io& /*io*/, std::uint64_t /*key*/) noexcept { return Progress::done(); }
void Target::prepare(Preparation& /*preparation*/) noexcept {}
void Target::fill(Preparation& /*preparation*/) noexcept {}
void Target::prepared(Preparation& /*preparation*/, IoStatus /*status*/) noexcept {}
void Target::seal(FlushPlan& /*plan*/) noexcept {}
Step Target::chore() noexcept { return Step::ready(0); }
void Target::failed() noexcept {}
void Target::flushed(const FlushPlan& /*plan*/, IoStatus /*status*/) noexcept {}
bool Target::untidy() const noexcept { return false; }
IoStatus Target::tidy_up(Queue& /*queue*/) noexcept { return {}; }
IoStatus Target::close(Queue& /*queue*/) noexcept { return {}; }
void Target::describe(std::vector<ChainPart>& /*chain*/) const {}

std::vector<TargetLine> Target::lines() const {
  std::vector<TargetLine> all(1);
  all[0].length = (size() + k_sector_bytes - 1) / k_sector_bytes;
  all[0].status = status();
  describe(all[0].chain);
  return all;
}

}  // namespace oxbow
