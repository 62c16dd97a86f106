// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>

#include "oxbow/error.h"

namespace oxbow {

// All that can be read from the descriptor `fd`, up to `most` bytes: more is an error. Errors begin with `what`
// ("cannot read table") and call it `name`.
[[nodiscard]] Result<std::string> read_all(int fd, const std::string& what, const std::string& name,
                                           std::size_t most);

// The same with the file at `path`.
[[nodiscard]] Result<std::string> read_file(const std::string& path, const std::string& what,
                                            std::size_t most);

}  // namespace oxbow
