// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/command.h"
#include "cli/served.h"
#include "cli/size.h"

namespace oxbow {
namespace {

using Json = nlohmann::ordered_json;

struct WatchArguments {
  std::string name;
  std::optional<std::uint64_t> below;
  bool json = false;
};

std::string text_of(const Json& space) {
  const auto size = [&](const char* key) {
    const Json& value = space.at(key);
    if (value.is_null()) return std::string("unknown");
    const auto bytes = value.get<std::uint64_t>();
    return fmt::format("{} ({} bytes)", format_size(bytes), bytes);
  };
  return fmt::format("{:<11}{}\n{:<11}{}\n", "total", size("total"), "available", size("available"));
}

ExitStatus watch(const WatchArguments& arguments) {
  const auto process = find_served_process(arguments.name);
  if (!process) return fail(process.error());
  const auto space = ask_space(*process, arguments.name, arguments.below);
  if (!space) return fail(space.error());
  const auto printed = print(
      arguments.json ? space->dump(2, ' ', false, Json::error_handler_t::replace) + "\n" : text_of(*space));
  return printed ? ExitStatus::done : fail(printed.error());
}

}  // namespace

void add_watch(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<WatchArguments>();
  CLI::App& command =
      add_command(app, "watch", "Show the room that a served layer has, or wait until it is short",
                  "[--below SIZE] [--json] NAME");
  add_served_name(command, arguments->name);
  add_size_option(
      command, "--below", [arguments](std::uint64_t size) { arguments->below = size; }, "SIZE",
      "Wait until no more than SIZE is available. Ends with an error when the device is closed or its "
      "process "
      "ends.");
  command.add_flag("--json", arguments->json, "Print JSON.");
  command.callback([arguments, &chosen] { chosen = [arguments] { return watch(*arguments); }; });
}

}  // namespace oxbow
