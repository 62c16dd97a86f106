// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/command.h"
#include "cli/cowfile.h"
#include "cli/progress.h"
#include "jobs/create_layer.h"

namespace oxbow {
namespace {

struct CreateArguments {
  CreateSpec spec;
  LayerFormat format = LayerFormat::oxb;
};

ExitStatus create(CreateArguments& arguments) {
  CreateSpec& spec = arguments.spec;
  if (arguments.format != LayerFormat::oxb) return create_cowfile(spec.base, spec.path, arguments.format);
  Queue queue;
  ProgressBar bar("hashing");
  spec.progress = bar.feed();
  const auto created = create_layer(queue, spec);
  bar.clear();
  return created ? ExitStatus::done : fail(created.error());
}

}  // namespace

void add_create(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<CreateArguments>();
  CreateSpec* const spec = &arguments->spec;
  CLI::App& command = add_command(app, "create", "Make a new layer or cowfile over an image",
                                  "--base IMAGE [--base-format FORMAT] [--allow-base DIR] [--discard-live] "
                                  "[--cluster SIZE] [--size SIZE] [--hash] [--format FORMAT] LAYER");
  command.add_option("LAYER", spec->path, "The file to make. It must not exist.")->type_name("")->required();
  command
      .add_option(
          "--base", spec->base,
          "What the layer is over: a raw image, a block device, or another layer. It is only ever read, and "
          "must not change as long as there is a layer over it.")
      ->type_name("IMAGE")
      ->required();
  CLI::Option* const base_format = add_base_format_option(command, spec->base_kind);
  add_allow_base_option(command, spec->allow_bases);
  add_discard_live_flag(command, spec->discard_live);
  std::vector<CLI::Option*> of_layers{base_format};
  of_layers.push_back(
      add_cluster_option(command, [spec](std::uint32_t shift) { spec->cluster_shift = shift; }));
  of_layers.push_back(add_size_option(
      command, "--size", [spec](std::uint64_t bytes) { spec->size_bytes = bytes; }, "SIZE",
      "The size of the device, not below that of the base, which is taken without this option. What is "
      "beyond the "
      "base reads as zeros."));
  of_layers.push_back(command.add_flag(
      "--hash", spec->hash,
      "Record the SHA-256 of all of the image, for oxbow check --data to compare. This reads all of it."));
  add_format_option(command, arguments->format);
  command.callback([arguments, of_layers, &chosen] {
    for (const CLI::Option* option : of_layers) {
      if (arguments->format != LayerFormat::oxb && option->count() > 0)
        refuse_usage("--format", option->get_name() + " is for layers, not for cowfiles");
    }
    chosen = [arguments] { return create(*arguments); };
  });
}

}  // namespace oxbow
