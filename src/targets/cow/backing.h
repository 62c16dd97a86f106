// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <limits>
#include <memory>
#include <utility>

#include "targets/target.h"

namespace oxbow {

// What shows through a layer's absent clusters: the base, as far as it was visible when the layer was made,
// and zeros for ever beyond. Read-only. Thread safety: as its base.
class Backing final : public Target {
 public:
  // A null base is all zeros.
  Backing(std::shared_ptr<Target> base, std::uint64_t visible_bytes) noexcept
      : base_(std::move(base)), visible_(base_ == nullptr ? 0 : visible_bytes) {}

  // Ranges may lie anywhere. The layers of the extents count from 1, as the layer that asks sees them.
  [[nodiscard]] Step locate(Range range, Extents& out) const noexcept override;
  [[nodiscard]] Step plan(Range /*range*/, const Change& /*change*/, Plan& /*plan*/) noexcept override {
    return Step::failed(EPERM);
  }
  void commit(Plan& /*plan*/) noexcept override {}
  void capture(FlushPlan& plan) noexcept override {
    if (base_ != nullptr) base_->capture(plan);
  }
  [[nodiscard]] std::uint64_t size() const noexcept override {
    return std::numeric_limits<std::uint64_t>::max();
  }
  [[nodiscard]] bool writable() const noexcept override { return false; }
  [[nodiscard]] TargetStatus status() const override { return {}; }

  [[nodiscard]] const Target* base() const noexcept { return base_.get(); }

 private:
  std::shared_ptr<Target> base_;
  std::uint64_t visible_;
};

}  // namespace oxbow
