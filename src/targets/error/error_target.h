// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "targets/registry.h"
#include "targets/target.h"

namespace oxbow {

// Every read and every change fails with EIO, as device-mapper's error target has it. A flush has nothing to do.
// Thread safety: as every Target; immutable.
class ErrorTarget final : public Target {
 public:
  // Flushes succeed, for there is nothing to flush; or they fail too, where something was lost before.
  enum class Flushes : std::uint8_t { succeed, fail };
  ErrorTarget(std::uint64_t size, bool writable, Flushes flushes = Flushes::succeed) noexcept
      : size_(size), writable_(writable), flushes_(flushes) {}

  [[nodiscard]] Step locate(Range range, Extents& out) const noexcept override;
  [[nodiscard]] Step plan(Range range, const Change& change, Plan& plan) noexcept override;
  [[nodiscard]] bool zeroes_fast(Range /*range*/, bool /*allocate*/) noexcept override {
    return true;  // nothing is written, it fails at once
  }
  void commit(Plan& plan) noexcept override;
  void capture(FlushPlan& plan) noexcept override;

  [[nodiscard]] std::uint64_t size() const noexcept override { return size_; }
  [[nodiscard]] bool writable() const noexcept override { return writable_; }
  [[nodiscard]] TargetStatus status() const override;

 private:
  const std::uint64_t size_;
  const bool writable_;
  const Flushes flushes_;
};

// `error`, without arguments.
[[nodiscard]] Result<MadeTarget> make_error_target(OpenContext& context, std::span<const std::string> args,
                                                   std::uint64_t length_bytes);

}  // namespace oxbow
