// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>

#include "cli/command.h"
#include "cli/device_arguments.h"
#include "cli/served.h"
#include "os/absolute_path.h"
#include "targets/registry.h"
#include "targets/table/table_text.h"

namespace oxbow {
namespace {

struct TableArguments {
  std::string name;
  bool info = false;
  bool loaded = false;
  std::string load;
  bool unload = false;
};

ExitStatus show(const TableArguments& arguments) {
  const auto answer = ask_served(arguments.name, "/table");
  if (!answer) return fail(answer.error());
  const auto& lines = answer->at(arguments.info ? "info" : arguments.loaded ? "loaded" : "table");
  if (lines.is_null()) return fail(Error("cannot show table", arguments.name, "none is loaded"));
  std::string out;
  for (const auto& line : lines) out += line.get<std::string>() + "\n";
  const auto printed = print(out);
  return printed ? ExitStatus::done : fail(printed.error());
}

// The same table such that it means the same files in the process that serves; each line keeps its number.
std::string lasting_table(std::span<TableLine> lines) {
  std::string text;
  unsigned number = 1;
  for (TableLine& line : lines) {
    for (; number < line.number; ++number) text += '\n';
    line.args = lasting_arguments(line.type, std::move(line.args));
    const std::string printed = print_table({&line, 1});
    number += static_cast<unsigned>(std::ranges::count(printed, '\n'));
    text += printed;
  }
  return text;
}

ExitStatus load(const TableArguments& arguments) {
  const auto process = find_served_process(arguments.name);
  if (!process) return fail(process.error());
  const auto table = open_table(arguments.load);
  if (!table) return fail(table.error());
  const std::string source = arguments.load == "-" ? table->source : absolute_path(arguments.load);
  auto lines = parse_table(table->text, source);
  if (!lines) return fail(lines.error());
  const auto answer =
      tell_served(*process, arguments.name, "/load", {{"table", lasting_table(*lines)}, {"source", source}});
  return answer ? ExitStatus::done : fail(answer.error());
}

ExitStatus unload(const std::string& name) {
  const auto process = find_served_process(name);
  if (!process) return fail(process.error());
  const auto answer = tell_served(*process, name, "/unload", {});
  return answer ? ExitStatus::done : fail(answer.error());
}

ExitStatus table(const TableArguments& arguments) {
  if (!arguments.load.empty()) return load(arguments);
  return arguments.unload ? unload(arguments.name) : show(arguments);
}

}  // namespace

void add_table(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<TableArguments>();
  CLI::App& command = add_command(app, "table", "Show or replace the table of a served device",
                                  "[--info | --loaded | --load FILE | --unload] NAME");
  add_served_name(command, arguments->name);
  auto* const info =
      command.add_flag("--info", arguments->info, "Print how each target is doing instead of its arguments.");
  auto* const loaded = command.add_flag("--loaded", arguments->loaded, "Print the table that is loaded.");
  auto* const load = command
                         .add_option("--load", arguments->load,
                                     "Load the table in a file, or with - from standard input, for the "
                                     "next oxbow resume.")
                         ->type_name("FILE");
  auto* const unload = command.add_flag("--unload", arguments->unload, "Let go of the table that is loaded.");
  info->excludes(loaded)->excludes(load)->excludes(unload);
  loaded->excludes(load)->excludes(unload);
  load->excludes(unload);
  command.callback([arguments, &chosen] { chosen = [arguments] { return table(*arguments); }; });
}

}  // namespace oxbow
