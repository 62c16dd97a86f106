// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "control/client.h"
#include "jobs/run_directory.h"

namespace oxbow {
namespace {

Result<void> sync_one(const control::Record& process, const std::string& name) {
  const auto answer = control::Client(process).post("/v1/devices/" + name + "/sync");
  if (!answer) return std::unexpected(answer.error());
  return {};
}

// Every device, whatever happens to others.
ExitStatus sync_all(const std::string& directory) {
  const auto records = control::list_records(directory);
  if (!records) return fail(records.error());
  ExitStatus status = ExitStatus::done;
  for (const control::Record& process : *records) {
    for (const std::string& name : process.names) {
      if (const auto synced = sync_one(process, name); !synced) status = fail(synced.error());
    }
  }
  return status;
}

ExitStatus sync(const std::string& name) {
  const std::string directory = run_directory_path();
  if (name.empty()) return sync_all(directory);
  const auto process = control::find_served(directory, name);
  if (!process) return fail(process.error());
  const auto synced = sync_one(*process, name);
  return synced ? ExitStatus::done : fail(synced.error());
}

}  // namespace

void add_sync(CLI::App& app, Chosen& chosen) {
  auto name = std::make_shared<std::string>();
  CLI::App& command = add_command(app, "sync", "Make what was written to served devices durable", "[NAME]");
  command.add_option("NAME", *name, "The device, as oxbow list shows it; all devices without it.")
      ->type_name("");
  command.callback([name, &chosen] { chosen = [name] { return sync(*name); }; });
}

}  // namespace oxbow
