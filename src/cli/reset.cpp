// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/confirm.h"
#include "cli/served.h"
#include "jobs/change_layer.h"

namespace oxbow {
namespace {

struct ResetArguments {
  std::string target;
  bool yes = false;
};

ExitStatus reset(const ResetArguments& arguments) {
  const auto place = find_device_or_layer(arguments.target);
  if (!place) return fail(place.error());
  const std::string what =
      fmt::format("This drops everything that was written to {} {}: its base shows again.\n",
                  place->served ? "device" : "layer", arguments.target);
  if (auto agreed = confirm(what, arguments.yes, "cannot reset", arguments.target); !agreed)
    return fail(agreed.error());
  if (place->served) {
    const auto answer = tell_served(*place->served, arguments.target, "/reset", {});
    return answer ? ExitStatus::done : fail(answer.error());
  }
  Queue queue;
  const auto done = reset_layer_file(queue, arguments.target);
  return done ? ExitStatus::done : fail(done.error());
}

}  // namespace

void add_reset(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<ResetArguments>();
  CLI::App& command = add_command(
      app, "reset", "Drop what was written to a layer, so that its base shows again", "[--yes] DEVICE");
  add_device_or_layer(command, arguments->target);
  add_yes_flag(command, arguments->yes);
  command.callback([arguments, &chosen] { chosen = [arguments] { return reset(*arguments); }; });
}

}  // namespace oxbow
