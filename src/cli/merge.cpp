// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "cli/command.h"
#include "cli/confirm.h"
#include "cli/cowfile.h"
#include "cli/progress.h"
#include "cli/size.h"
#include "jobs/merge_layer.h"

namespace oxbow {
namespace {

struct MergeArguments {
  std::string layer;
  bool accept_base = false;
  std::optional<std::string> base;  // of a cowfile
  bool yes = false;
};

std::string question(const MergeOutlook& outlook, const std::string& layer) {
  std::string text =
      fmt::format("{} {} of data and {} of zeros from layer {} into its base {} ({}, {}).\n",
                  outlook.resumed ? "This resumes a merge that was cut off, and writes" : "This writes",
                  format_size(outlook.changes.data_bytes), format_size(outlook.changes.zero_bytes), layer,
                  outlook.base, outlook.base_is_layer ? "a layer" : "raw", format_size(outlook.base_bytes));
  if (outlook.base_bytes < outlook.device_bytes)
    text += fmt::format("The base is extended to {}.\n", format_size(outlook.device_bytes));
  return text +
         "What the base held there before is lost. Other layers over this base, and layers over this layer, "
         "will "
         "refuse it from then on.\n";
}

ExitStatus merge(const MergeArguments& arguments) {
  if (is_cowfile(arguments.layer)) {
    const std::string wrong = arguments.accept_base ? "--accept-base" : "";
    if (auto refused = refuse_option(wrong, "cannot merge cowfile", arguments.layer, "layers"); !refused)
      return fail(refused.error());
    return merge_cowfile(arguments.layer, arguments.base, arguments.yes);
  }
  if (auto refused =
          refuse_option(arguments.base ? "--base" : "", "cannot merge layer", arguments.layer, "cowfiles");
      !refused)
    return fail(refused.error());
  Queue queue;
  auto opened = Merge::open(queue, arguments.layer, arguments.accept_base);
  if (!opened) return fail(opened.error());
  const std::string what = question((*opened)->outlook(), arguments.layer);
  if (auto agreed = confirm(what, arguments.yes, "cannot merge layer", arguments.layer); !agreed)
    return fail(agreed.error());
  ProgressBar bar("merging");
  const auto merged = (*opened)->run(bar.feed());
  bar.clear();
  if (merged) return ExitStatus::done;
  return fail(Error(merged.error().what(), merged.error().where(),
                    merged.error().why() + "; the layer still has its changes: merge it again"));
}

}  // namespace

void add_merge(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<MergeArguments>();
  CLI::App& command = add_command(app, "merge", "Write the changes of a layer or cowfile into its base",
                                  "[--accept-base] [--base IMAGE] [--yes] LAYER");
  command
      .add_option("LAYER", arguments->layer,
                  "The layer, or a cowfile of cowloop. Nobody may be using it, or its base.")
      ->type_name("")
      ->required();
  add_accept_base_flag(command, arguments->accept_base);
  add_cowfile_base_option(command, arguments->base, "which is written to.");
  add_yes_flag(command, arguments->yes);
  command.callback([arguments, &chosen] { chosen = [arguments] { return merge(*arguments); }; });
}

}  // namespace oxbow
