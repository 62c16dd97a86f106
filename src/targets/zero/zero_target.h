// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "targets/registry.h"
#include "targets/target.h"

namespace oxbow {

// Reads as zeros; writes succeed and are forgotten, as device-mapper's zero target has it.
// Thread safety: as every Target; immutable.
class ZeroTarget final : public Target {
 public:
  ZeroTarget(std::uint64_t size, bool writable) noexcept : size_(size), writable_(writable) {}

  [[nodiscard]] Step locate(Range range, Extents& out) const noexcept override;
  [[nodiscard]] Step plan(Range range, const Change& change, Plan& plan) noexcept override;
  [[nodiscard]] bool zeroes_fast(Range /*range*/, bool /*allocate*/) noexcept override { return true; }
  void commit(Plan& plan) noexcept override;
  void capture(FlushPlan& plan) noexcept override;

  [[nodiscard]] std::uint64_t size() const noexcept override { return size_; }
  [[nodiscard]] bool writable() const noexcept override { return writable_; }
  [[nodiscard]] TargetStatus status() const override;

 private:
  const std::uint64_t size_;
  const bool writable_;
};

// `zero`, without arguments.
[[nodiscard]] Result<MadeTarget> make_zero_target(OpenContext& context, std::span<const std::string> args,
                                                  std::uint64_t length_bytes);

}  // namespace oxbow
