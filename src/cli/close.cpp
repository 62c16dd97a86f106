// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/served.h"

namespace oxbow {
namespace {

ExitStatus tell(const std::string& name, const char* request) {
  const auto process = find_served_process(name);
  if (!process) return fail(process.error());
  const auto answer = tell_served(*process, name, request, {});
  return answer ? ExitStatus::done : fail(answer.error());
}

void add(CLI::App& app, Chosen& chosen, const char* command_name, const char* description) {
  auto name = std::make_shared<std::string>();
  CLI::App& command = add_command(app, command_name, description, "NAME");
  add_served_name(command, *name);
  const std::string request = std::string("/") + command_name;
  command.callback(
      [name, request, &chosen] { chosen = [name, request] { return tell(*name, request.c_str()); }; });
}

}  // namespace

void add_close(CLI::App& app, Chosen& chosen) {
  add(app, chosen, "close", "Let a served device let go of its files, its clients staying");
}

void add_clear(CLI::App& app, Chosen& chosen) {
  add(app, chosen, "clear", "Empty a served RAM disk that no client has open");
}

void add_reopen_ro(CLI::App& app, Chosen& chosen) {
  add(app, chosen, "reopen-ro", "Let a served device open its files again for reading only");
}

}  // namespace oxbow
