// SPDX-License-Identifier: Apache-2.0
#include "cli/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>

#include "cli/command.h"
#include "cli/cowloop/command.h"
#include "cli/help.h"

namespace oxbow {
namespace {

ExitStatus wrong_usage(const CLI::App& app, const std::string& why) {
  const auto chosen = app.get_subcommands();
  const std::string command = chosen.empty() ? "oxbow" : "oxbow " + chosen.front()->get_name();
  std::fprintf(stderr, "oxbow: wrong usage: %s; see %s --help\n", why.c_str(), command.c_str());
  return ExitStatus::wrong_usage;
}

// Why the first word is neither a command nor an option; empty when it is.
std::string wrong_command(const CLI::App& app, int argc, char** argv) {
  if (argc < 2) return "a command is needed";
  const std::string word = argv[1];
  if (word.starts_with('-')) return {};
  const auto same = [&](const CLI::App* command) { return command->get_name() == word; };
  if (!app.get_subcommands(same).empty()) return {};
  return "there is no command '" + word + "'";
}

ExitStatus print_or_fail(const std::string& text) {
  const auto printed = print(text);
  return printed ? ExitStatus::done : fail(printed.error());
}

ExitStatus parse_and_run(int argc, char** argv) {
  CLI::App app("Virtual block devices in user space", "oxbow");
  Chosen chosen;
  app.formatter(make_help_formatter("COMMAND [ARGUMENTS]"));
  app.set_help_flag("-h,--help", "Print this help and exit.");
  app.set_version_flag("--version", "oxbow " OXBOW_VERSION, "Print the version and exit.");
  add_create(app, chosen);
  add_serve(app, chosen);
  add_attach(app, chosen);
  add_detach(app, chosen);
  add_info(app, chosen);
  add_map(app, chosen);
  add_check(app, chosen);
  add_repair(app, chosen);
  add_pack(app, chosen);
  add_unpack(app, chosen);
  add_convert(app, chosen);
  add_merge(app, chosen);
  add_reset(app, chosen);
  add_resize(app, chosen);
  add_list(app, chosen);
  add_status(app, chosen);
  add_table(app, chosen);
  add_suspend(app, chosen);
  add_resume(app, chosen);
  add_sync(app, chosen);
  add_watch(app, chosen);
  add_clear(app, chosen);
  add_close(app, chosen);
  add_reopen_ro(app, chosen);
  if (const std::string why = wrong_command(app, argc, argv); !why.empty()) return wrong_usage(app, why);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return print_or_fail(app.help());
  } catch (const CLI::CallForVersion& version) {
    return print_or_fail(std::string(version.what()) + "\n");
  } catch (const CLI::ParseError& error) {
    return wrong_usage(app, error.what());
  }
  return chosen ? chosen() : wrong_usage(app, "a command is needed");
}

}  // namespace

int run_command_line(int argc, char** argv) {
  try {
    if (const auto status = cowloop_commands::run(argc, argv)) return *status;
    return static_cast<int>(parse_and_run(argc, argv));
  } catch (const std::exception& error) {
    return static_cast<int>(fail(Error("cannot go on", "oxbow", error.what())));
  }
}

}  // namespace oxbow
