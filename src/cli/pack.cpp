// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "cli/command.h"
#include "cli/cowfile.h"
#include "cli/progress.h"
#include "cli/size.h"
#include "jobs/pack_layer.h"

namespace oxbow {
namespace {

std::string to_text(const PackSpec& spec, const PackReport& report) {
  return fmt::format("packed {} into {}: {} of data in {}\n", spec.layer, spec.out,
                     format_size(report.data_bytes), format_size(report.packed_bytes));
}

struct PackArguments {
  PackSpec spec;
  bool plain = false;
  bool gzip = false;
  std::string of_layers;  // an option that was given and means nothing for a cowfile
};

ExitStatus pack(const PackArguments& arguments) {
  const PackSpec& spec = arguments.spec;
  const bool cowfile = is_cowfile(spec.layer);
  if (auto refused = cowfile ? refuse_option(arguments.of_layers, "cannot pack cowfile", spec.layer, "layers")
                             : refuse_option(arguments.gzip ? "--gzip" : "", "cannot pack layer", spec.layer,
                                             "cowfiles");
      !refused)
    return fail(refused.error());
  if (cowfile) return pack_cowfile(spec.layer, spec.out, arguments.gzip, spec.replace);
  Queue queue;
  ProgressBar bar("packing");
  const auto packed = pack_layer(queue, spec, bar.feed());
  bar.clear();
  if (!packed) return fail(packed.error());
  const auto printed = print(to_text(spec, *packed));
  return printed ? ExitStatus::done : fail(printed.error());
}

}  // namespace

void add_pack(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<PackArguments>();
  PackSpec* const spec = &arguments->spec;
  CLI::App& command =
      add_command(app, "pack", "Make a compact copy of a layer or cowfile, for transport or to keep",
                  "[--level N | --no-compress] [--accept-base] [--gzip] [--force] LAYER OUT");
  command
      .add_option("LAYER", spec->layer, "The layer, or a cowfile of cowloop. What is below it is not packed.")
      ->type_name("")
      ->required();
  command.add_option("OUT", spec->out, "The file to make.")->type_name("")->required();
  CLI::Option* level =
      command
          .add_option("--level", spec->level,
                      "How hard zstd tries, from 1, the fastest, to 19, the smallest; 3 without this option.")
          ->type_name("N")
          ->check([](const std::string& text) {
            int number = 0;
            const bool fits = CLI::detail::lexical_cast(text, number) && number >= packed::k_lowest_level &&
                              number <= packed::k_highest_level;
            return fits ? std::string() : "a level is a number from 1 to 19";
          });
  command.add_flag("--no-compress", arguments->plain, "Store the clusters as they are.")->excludes(level);
  add_accept_base_flag(command, spec->accept_base);
  command.add_flag("--gzip", arguments->gzip, "Of a cowfile: compress it as cowpack -z does.");
  command.add_flag("--force", spec->replace, "Replace OUT if it exists and nobody has it in use.");
  command.callback([arguments, level, &chosen] {
    if (arguments->plain) arguments->spec.level = 0;
    arguments->of_layers = level->count() > 0            ? "--level"
                           : arguments->plain            ? "--no-compress"
                           : arguments->spec.accept_base ? "--accept-base"
                                                         : "";
    chosen = [arguments] { return pack(*arguments); };
  });
}

}  // namespace oxbow
