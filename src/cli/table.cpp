// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/served.h"

namespace oxbow {
namespace {

ExitStatus table(const std::string& name) {
  const auto answer = ask_served(name, "/table");
  if (!answer) return fail(answer.error());
  std::string out;
  for (const char* kind : {"info", "table"}) {
    out += kind == std::string_view("info") ? "INFO\n" : "TABLE\n";
    for (const auto& line : answer->at(kind)) out += line.get<std::string>() + "\n";
  }
  const auto printed = print(out);
  return printed ? ExitStatus::done : fail(printed.error());
}

}  // namespace

void add_table(CLI::App& app, Chosen& chosen) {
  auto name = std::make_shared<std::string>();
  CLI::App& command = add_command(app, "table", "Show the targets that a served device is made of", "NAME");
  add_served_name(command, *name);
  command.callback([name, &chosen] { chosen = [name] { return table(*name); }; });
}

}  // namespace oxbow
