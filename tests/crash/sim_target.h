// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <utility>

#include "targets/target.h"

namespace oxbow::crash {

// A whole store as a target: the raw base under the layers, and a device without any layer.
// Thread safety: as Target says.
class SimTarget final : public Target {
 public:
  SimTarget(std::shared_ptr<Store> store, bool writable) : store_(std::move(store)), writable_(writable) {}

  [[nodiscard]] Step locate(Range range, Extents& out) const noexcept override {
    out.push_back({range.length, Kind::data, 0, store_.get(), range.offset});
    return Step::ready(range.length);
  }
  [[nodiscard]] Step plan(Range range, const Change& change, Plan& plan) noexcept override {
    plan.owner = this;
    plan.has_move = true;
    plan.move.store = store_.get();
    plan.move.at = range.offset;
    plan.move.body = range.length;
    plan.move.from = change.operation == Operation::write ? Source::payload : Source::zeros;
    plan.durable_alone = change.operation == Operation::write;
    return Step::ready(range.length);
  }
  void commit(Plan& /*plan*/) noexcept override {}
  void capture(FlushPlan& plan) noexcept override { plan.rounds[0].sync(*store_); }
  [[nodiscard]] std::uint64_t size() const noexcept override { return store_->size(); }
  [[nodiscard]] bool writable() const noexcept override { return writable_; }
  [[nodiscard]] TargetStatus status() const override { return {"sim", "", store_->describe()}; }

 private:
  std::shared_ptr<Store> store_;
  bool writable_;
};

}  // namespace oxbow::crash
