// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/served.h"
#include "cli/size.h"
#include "jobs/change_layer.h"

namespace oxbow {
namespace {

struct ResizeArguments {
  std::string target;
  std::uint64_t size_bytes = 0;
  bool accept_base = false;
};

ExitStatus resize(const ResizeArguments& arguments) {
  const auto place = find_device_or_layer(arguments.target);
  if (!place) return fail(place.error());
  if (place->served) {
    const auto answer =
        tell_served(*place->served, arguments.target, "/resize", {{"size", arguments.size_bytes}});
    return answer ? ExitStatus::done : fail(answer.error());
  }
  Queue queue;
  const auto done = grow_layer_file(queue, arguments.target, arguments.size_bytes, arguments.accept_base);
  return done ? ExitStatus::done : fail(done.error());
}

}  // namespace

void add_resize(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<ResizeArguments>();
  CLI::App& command =
      add_command(app, "resize", "Give a layer or a RAM disk another size", "[--accept-base] DEVICE SIZE");
  add_device_or_layer(command, arguments->target);
  add_size_option(
      command, "SIZE", [arguments](std::uint64_t size) { arguments->size_bytes = size; }, "",
      "Its new size; of a layer, not below the present one. What is new reads as zeros.")
      ->required();
  add_accept_base_flag(command, arguments->accept_base);
  command.callback([arguments, &chosen] { chosen = [arguments] { return resize(*arguments); }; });
}

}  // namespace oxbow
