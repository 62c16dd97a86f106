// SPDX-License-Identifier: Apache-2.0
#include "cli/served.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "control/client.h"
#include "jobs/run_directory.h"

namespace oxbow {

void add_served_name(CLI::App& command, std::string& name) {
  command.add_option("NAME", name, "The device, as oxbow list shows it.")->type_name("")->required();
}

Result<nlohmann::ordered_json> ask_served(const std::string& name, const std::string& rest) {
  const auto process = control::find_served(run_directory_path(), name);
  if (!process) return std::unexpected(process.error());
  return control::Client(*process).get("/v1/devices/" + name + rest);
}

}  // namespace oxbow
