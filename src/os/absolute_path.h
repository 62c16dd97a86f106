// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

namespace oxbow {

// The same file, whatever the working directory becomes: for what is shown or opened again later. The path as it
// is where there is no working directory any more.
[[nodiscard]] inline std::string absolute_path(const std::string& path) {
  std::error_code failed;
  const auto absolute = std::filesystem::absolute(path, failed);
  return failed ? path : absolute.lexically_normal().string();
}

}  // namespace oxbow
