// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <bit>
#include <memory>

#include "cli/command.h"
#include "cli/progress.h"
#include "jobs/create_layer.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_smallest_cluster = std::uint64_t{1} << native::k_smallest_cluster_shift;
constexpr std::uint64_t k_largest_cluster = std::uint64_t{1} << native::k_largest_cluster_shift;

void set_cluster(CreateSpec& spec, std::uint64_t bytes) {
  if (!std::has_single_bit(bytes) || bytes < k_smallest_cluster || bytes > k_largest_cluster) {
    refuse_usage("--cluster", "a cluster is a power of two from 4K to 1M");
  }
  spec.cluster_shift = static_cast<std::uint32_t>(std::countr_zero(bytes));
}

ExitStatus create(CreateSpec& spec) {
  Queue queue;
  ProgressBar bar("hashing");
  spec.progress = bar.feed();
  const auto created = create_layer(queue, spec);
  bar.clear();
  return created ? ExitStatus::done : fail(created.error());
}

}  // namespace

void add_create(CLI::App& app, Chosen& chosen) {
  auto spec = std::make_shared<CreateSpec>();
  CLI::App& command = add_command(app, "create", "Make a new layer over an image",
                                  "--base IMAGE [--base-format FORMAT] [--allow-base DIR] [--discard-live] "
                                  "[--cluster SIZE] [--size SIZE] [--hash] LAYER");
  command.add_option("LAYER", spec->path, "The file to make. It must not exist.")->type_name("")->required();
  command
      .add_option(
          "--base", spec->base,
          "What the layer is over: a raw image, a block device, or another layer. It is only ever read, and "
          "must not change as long as there is a layer over it.")
      ->type_name("IMAGE")
      ->required();
  add_base_format_option(command, spec->base_kind);
  add_allow_base_option(command, spec->allow_bases);
  add_discard_live_flag(command, spec->discard_live);
  add_size_option(
      command, "--cluster", [spec](std::uint64_t bytes) { set_cluster(*spec, bytes); }, "SIZE",
      "How much is copied at the least when a part of it is written: a power of two from 4K to 1M; 4K "
      "without this "
      "option.");
  add_size_option(
      command, "--size", [spec](std::uint64_t bytes) { spec->size_bytes = bytes; }, "SIZE",
      "The size of the device, not below that of the base, which is taken without this option. What is "
      "beyond the "
      "base reads as zeros.");
  command.add_flag(
      "--hash", spec->hash,
      "Record the SHA-256 of all of the image, for oxbow check --data to compare. This reads all of it.");
  command.callback([spec, &chosen] { chosen = [spec] { return create(*spec); }; });
}

}  // namespace oxbow
