// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "targets/linear/linear_target.h"

namespace oxbow {

// The same as `linear`, but for regular files only and with an offset in bytes.
// Thread safety: as every Target; immutable.
class FileTarget final : public LinearTarget {
 public:
  using LinearTarget::LinearTarget;
  [[nodiscard]] TargetStatus status() const override;
};

// `file PATH BYTES`: a regular file, from a byte on.
[[nodiscard]] Result<MadeTarget> make_file_target(OpenContext& context, std::span<const std::string> args,
                                                  std::uint64_t length_bytes);

}  // namespace oxbow
