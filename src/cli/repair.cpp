// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/cowfile.h"
#include "cli/findings.h"
#include "jobs/repair_layer.h"
#include "stores/open_stores.h"
#include "targets/cow/holder.h"
#include "targets/cow/open_layer.h"

namespace oxbow {
namespace {

using Json = nlohmann::ordered_json;

struct RepairArguments {
  std::string file;
  RepairOptions options;
  bool accept_base = false;
  bool discard_live = false;
  std::vector<std::string> allow_bases;
  bool force = false;  // of a cowfile
  bool json = false;
};

// An option that was given and means nothing for a cowfile; empty when there is none.
std::string option_of_layers(const RepairArguments& arguments) {
  if (!arguments.options.accept_older.empty()) return "--accept-older";
  if (!arguments.options.drop.empty()) return "--drop";
  if (arguments.options.drop_ring) return "--drop-ring";
  return arguments.discard_live ? "--discard-live" : "";
}

ExitStatus repair_file_of_cowloop(const RepairArguments& arguments) {
  if (auto refused =
          refuse_option(option_of_layers(arguments), "cannot repair cowfile", arguments.file, "layers");
      !refused)
    return fail(refused.error());
  return repair_cowfile(arguments.file, arguments.options.dry_run, arguments.force, arguments.json);
}

// As serving it would: the chain below is opened too.
Result<void> recover_file(OpenContext& context, const std::string& path) {
  auto layer = open_layer(context, path);
  if (!layer) return std::unexpected(layer.error());
  const IoStatus closed = (*layer)->close(context.queue);
  if (closed.ok()) return {};
  return std::unexpected(Error::from_errno("cannot recover layer", path, closed.error_number()));
}

Result<RepairReport> repair_file(const RepairArguments& arguments) {
  Queue queue;
  OpenStores stores;
  RepairOptions options = arguments.options;
  const bool writable = !options.dry_run;
  auto bases = allowed_bases(arguments.allow_bases);
  if (!bases) return std::unexpected(bases.error());
  const auto store = open_when_let_go(queue, arguments.file, [&] {
    return stores.open_file(
        arguments.file, {.writable = writable, .lock = writable ? LockMode::exclusive : LockMode::shared});
  });
  if (!store) return std::unexpected(store.error());
  OpenContext context{.queue = queue,
                      .stores = stores,
                      .writable = writable,
                      .accept_base = arguments.accept_base,
                      .bases = std::move(*bases)};
  context.live.discard = arguments.discard_live;
  options.recover = [&] { return recover_file(context, arguments.file); };
  return repair_layer(queue, **store, options);
}

std::string to_text(const RepairReport& report, bool dry_run) {
  const std::uint32_t shift = report.before.superblock.cluster_shift;
  std::string out;
  for (const RepairStep& step : report.steps) {
    out += fmt::format("{}: {}: {}\n", dry_run ? "would mend" : "mended", step.where, step.what);
    for (const Range& lost : step.lost) {
      out +=
          fmt::format("{}: {}: {}\n", dry_run ? "would be lost" : "lost", step.where, lost_text(lost, shift));
    }
  }
  for (const Finding& finding : report.left) out += "left: " + to_text(finding, shift) + "\n";
  if (report.steps.empty() && report.left.empty()) out += "nothing to mend\n";
  return out;
}

std::string to_json(const RepairReport& report, const RepairArguments& arguments) {
  Json steps = Json::array();
  for (const RepairStep& step : report.steps) {
    Json lost = Json::array();
    for (const Range& range : step.lost) lost.push_back({{"start", range.offset}, {"length", range.length}});
    steps.push_back({{"where", step.where}, {"what", step.what}, {"lost", std::move(lost)}});
  }
  Json left = Json::array();
  for (const Finding& finding : report.left) left.push_back(to_json(finding));
  const Json all{{"file", arguments.file},
                 {"dry_run", arguments.options.dry_run},
                 {"sound", report.sound()},
                 {"steps", std::move(steps)},
                 {"left", std::move(left)}};
  return all.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

ExitStatus repair(const RepairArguments& arguments) {
  if (is_cowfile(arguments.file)) return repair_file_of_cowloop(arguments);
  if (auto refused =
          refuse_option(arguments.force ? "--force" : "", "cannot repair layer", arguments.file, "cowfiles");
      !refused)
    return fail(refused.error());
  const auto report = repair_file(arguments);
  if (!report) return fail(report.error());
  const auto printed =
      print(arguments.json ? to_json(*report, arguments) : to_text(*report, arguments.options.dry_run));
  if (!printed) return fail(printed.error());
  if (report->sound()) return ExitStatus::done;
  const auto failed = [&](std::string why) {
    return fail(Error("cannot repair layer", arguments.file, std::move(why)));
  };
  if (report->before.unusable) return failed(report->before.unusable->why());
  if (report->not_recovered)
    return failed("it was not closed cleanly, and recovering it failed: " + report->not_recovered->text());
  return failed("what is left cannot be mended without losing something, and nothing is guessed");
}

void add_pages(CLI::App& command, const std::string& name, std::vector<std::uint64_t>& pages,
               const std::string& description) {
  command.add_option(name, pages, description)
      ->type_name("PAGE")
      ->expected(1)
      ->allow_extra_args(false)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
}

}  // namespace

void add_repair(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<RepairArguments>();
  CLI::App& command = add_command(app, "repair", "Mend the metadata of a layer or cowfile",
                                  "[--dry-run] [--accept-older PAGE] [--drop PAGE] [--drop-ring] "
                                  "[--accept-base] "
                                  "[--allow-base DIR] [--discard-live] [--force] [--json] FILE");
  command.add_option("FILE", arguments->file, "The layer, or a cowfile of cowloop.")
      ->type_name("")
      ->required();
  command.add_flag("--dry-run", arguments->options.dry_run, "Say what would be done, and write nothing.");
  add_pages(
      command, "--accept-older", arguments->options.accept_older,
      "Of that damaged state page take the slot that is whole, although it may be the older one. May be "
      "given several times.");
  add_pages(
      command, "--drop", arguments->options.drop,
      "Give that damaged state page up: what was written to its part of the device is gone, and the base "
      "shows through. May be given several times.");
  command.add_flag(
      "--drop-ring", arguments->options.drop_ring,
      "Give up what lies in the commit ring behind a damaged record, and that record: flushed writes are "
      "lost.");
  add_accept_base_flag(command, arguments->accept_base);
  add_allow_base_option(command, arguments->allow_bases);
  command.add_flag(
      "--discard-live", arguments->discard_live,
      "Go on with what is on the disk when the live state that a killed process left is missing or unfit: "
      "writes that were not flushed are lost then.");
  command.add_flag(
      "--force", arguments->force,
      "Of a cowfile: mark every block that holds something also when it is not dirty, or was left by a "
      "process that was killed.");
  command.add_flag("--json", arguments->json, "Print JSON.");
  command.callback([arguments, &chosen] { chosen = [arguments] { return repair(*arguments); }; });
}

}  // namespace oxbow
