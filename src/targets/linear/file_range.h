// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the targets `linear` and `file` share: two arguments, and a file that is long enough.

#include <memory>
#include <string>
#include <string_view>

#include "stores/store.h"
#include "targets/registry.h"

namespace oxbow {

// The arguments PATH OFFSET, the offset turned into bytes. Thread safety: a value.
struct FileRangeArguments {
  std::string path;
  std::uint64_t offset = 0;
};

// Exactly two arguments, the second a number of `unit_bytes` each that stays below 2^63 bytes.
// `type` is the target's name and `usage` its arguments, for the error.
[[nodiscard]] Result<FileRangeArguments> parse_file_range(std::string_view type, std::string_view usage,
                                                          std::span<const std::string> args,
                                                          std::uint64_t unit_bytes);

// Opens the file, read-only or read-write as the context says, and checks that `range` lies within it and that it is
// not a layer, whose bytes nobody means. A writable file is held exclusively, another one shared.
[[nodiscard]] Result<std::shared_ptr<Store>> open_file_range(OpenContext& context, std::string_view type,
                                                             const std::string& path, Range range);

}  // namespace oxbow
