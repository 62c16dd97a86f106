// SPDX-License-Identifier: Apache-2.0
#pragma once

// What `oxbow serve --config` reads: TOML with the words of the command line (oxbow-config(5)).

#include <string>
#include <string_view>
#include <vector>

#include "cli/serve_arguments.h"
#include "oxbow/error.h"

namespace oxbow {

// What a file says. Thread safety: a value.
struct Config {
  std::vector<ServedDeviceArguments> devices;  // at least one, names all different, at most one the default
  ServerArguments server;
  ProcessArguments process;
};

// `source` is what errors call the text; relative paths in it are meant from `folder`, which may be empty. Nothing
// is opened. Errors name the line and the key, and say what was expected.
[[nodiscard]] Result<Config> parse_config(std::string_view text, const std::string& source,
                                          const std::string& folder);

// The same with a file; relative paths are meant from where it is.
[[nodiscard]] Result<Config> load_config(const std::string& path);

}  // namespace oxbow
