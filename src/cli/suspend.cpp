// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/served.h"
#include "targets/argument.h"

namespace oxbow {
namespace {

struct SuspendArguments {
  std::string name;
  std::uint64_t timeout_s = 30;
};

ExitStatus tell(const SuspendArguments& arguments, const std::string& request) {
  const auto process = find_served_process(arguments.name);
  if (!process) return fail(process.error());
  const auto answer = tell_served(*process, arguments.name, request, {{"timeout", arguments.timeout_s}});
  return answer ? ExitStatus::done : fail(answer.error());
}

void add(CLI::App& app, Chosen& chosen, const std::string& name, const char* description) {
  auto arguments = std::make_shared<SuspendArguments>();
  CLI::App& command = add_command(app, name, description, "[--timeout SECONDS] NAME");
  add_served_name(command, arguments->name);
  command
      .add_option("--timeout", arguments->timeout_s,
                  "Fail, and let all requests go on, when those in flight have not ended by then; 30 by "
                  "default.")
      ->type_name("SECONDS")
      ->check([](const std::string& text) -> std::string {
        const auto seconds = parse_number(text);
        if (seconds && *seconds >= 1 && *seconds <= 86400) return {};
        return "it is a number of seconds, 1 to 86400, not " + text;
      });
  command.callback([arguments, request = "/" + name, &chosen] {
    chosen = [arguments, request] { return tell(*arguments, request); };
  });
}

}  // namespace

void add_suspend(CLI::App& app, Chosen& chosen) {
  add(app, chosen, "suspend", "Hold the requests of a served device, everything durable");
}

void add_resume(CLI::App& app, Chosen& chosen) {
  add(app, chosen, "resume", "Let the requests of a served device go on, with the table that is loaded");
}

}  // namespace oxbow
