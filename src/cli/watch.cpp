// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "cli/command.h"
#include "cli/served.h"
#include "cli/size.h"
#include "control/client.h"

namespace oxbow {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::chrono::milliseconds k_between_looks(500);

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

// Whether there is nothing more to wait for.
Result<bool> low_enough(const Json& space, const WatchArguments& arguments) {
  const auto refuse = [&](const char* why) {
    return std::unexpected(Error("cannot watch device", arguments.name, why));
  };
  if (space.at("state") == "closed") return refuse("it is closed");
  const Json& available = space.at("available");
  if (!arguments.below) return true;
  if (available.is_null()) return refuse("how much room there is for it is not known");
  return available.get<std::uint64_t>() <= *arguments.below;
}

ExitStatus watch(const WatchArguments& arguments) {
  const auto process = find_served_process(arguments.name);
  if (!process) return fail(process.error());
  for (;;) {
    const auto space = control::Client(*process).get("/v1/devices/" + arguments.name + "/space");
    if (!space) return fail(space.error());
    const auto enough = low_enough(*space, arguments);
    if (!enough) return fail(enough.error());
    if (*enough) {
      const auto printed =
          print(arguments.json ? space->dump(2, ' ', false, Json::error_handler_t::replace) + "\n"
                               : text_of(*space));
      return printed ? ExitStatus::done : fail(printed.error());
    }
    std::this_thread::sleep_for(k_between_looks);
  }
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
