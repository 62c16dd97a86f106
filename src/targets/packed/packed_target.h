// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "stores/packed/packed_store.h"
#include "targets/cow/backing.h"
#include "targets/target.h"

namespace oxbow {

// A packed layer over its base; nobody can write to it. Thread safety: as Target; immutable.
class PackedTarget final : public Target {
 public:
  // `base` is null when the layer has none. Whether it is the right one is the caller's business.
  PackedTarget(std::shared_ptr<PackedStore> layer, std::shared_ptr<Target> base) noexcept;

  [[nodiscard]] Step locate(Range range, Extents& out) const noexcept override;
  [[nodiscard]] Step plan(Range range, const Change& change, Plan& plan) noexcept override;
  void commit(Plan& /*plan*/) noexcept override {}
  void capture(FlushPlan& plan) noexcept override { backing_.capture(plan); }

  [[nodiscard]] std::uint64_t size() const noexcept override { return header().size; }
  [[nodiscard]] bool writable() const noexcept override { return false; }
  // INFO is PACKED/SIZE CLUSTER in sectors, PACKED being the packed file's length; then, after the first damage that
  // a read met, that as a sentence.
  [[nodiscard]] TargetStatus status() const override;
  void describe(std::vector<ChainPart>& chain) const override;

  [[nodiscard]] const packed::Header& header() const noexcept { return layer_->index().header(); }
  [[nodiscard]] const PackedStore& store() const noexcept { return *layer_; }

 private:
  const std::shared_ptr<PackedStore> layer_;
  Backing backing_;
};

}  // namespace oxbow
