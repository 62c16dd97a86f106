// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "cli/cowfile.h"
#include "cli/progress.h"
#include "cli/size.h"
#include "jobs/cowloop/convert_cowfile.h"

namespace oxbow {
namespace {

struct ConvertArguments {
  std::string in;
  std::string out;
  std::optional<std::string> base;
  std::optional<std::uint32_t> cluster_shift;
  LayerFormat format = LayerFormat::cowloop;
  CLI::Option* format_option = nullptr;
};

ExitStatus tell(const ConvertArguments& arguments, std::uint64_t bytes) {
  const auto printed = print(
      fmt::format("converted {} into {}: {} of data\n", arguments.in, arguments.out, format_size(bytes)));
  return printed ? ExitStatus::done : fail(printed.error());
}

ExitStatus to_layer(Queue& queue, const ConvertArguments& arguments) {
  constexpr const char* k_cannot = "cannot convert cowfile";
  if (arguments.format_option->count() > 0 && arguments.format != LayerFormat::oxb)
    return fail(Error(k_cannot, arguments.in, "it is a cowfile already, and becomes a layer"));
  if (!arguments.base)
    return fail(Error(k_cannot, arguments.in, "a cowfile doesn't know its read-only file: --base names it"));
  ProgressBar bar("converting");
  const auto made = cowloop::convert_to_layer(
      queue,
      {.base = *arguments.base,
       .cowfile = arguments.in,
       .out = arguments.out,
       .cluster_shift = arguments.cluster_shift.value_or(native::k_smallest_cluster_shift)},
      bar.feed());
  bar.clear();
  return made ? tell(arguments, *made) : fail(made.error());
}

ExitStatus to_cowfile(Queue& queue, const ConvertArguments& arguments) {
  constexpr const char* k_cannot = "cannot convert layer";
  const std::string wrong = arguments.base ? "--base" : arguments.cluster_shift ? "--cluster" : "";
  if (auto refused = refuse_option(wrong, k_cannot, arguments.in, "cowfiles, and this is none"); !refused)
    return fail(refused.error());
  if (arguments.format == LayerFormat::oxb)
    return fail(Error(k_cannot, arguments.in, "it is no cowfile, and can only become one"));
  ProgressBar bar("converting");
  const auto head = cowloop::convert_to_cowfile(
      queue, {.layer = arguments.in, .out = arguments.out, .layout = layout_of(arguments.format)},
      bar.feed());
  bar.clear();
  return head ? tell(arguments, head->used_blocks * cowloop::k_block_bytes) : fail(head.error());
}

ExitStatus convert(const ConvertArguments& arguments) {
  Queue queue;
  return is_cowfile(arguments.in) ? to_layer(queue, arguments) : to_cowfile(queue, arguments);
}

}  // namespace

void add_convert(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<ConvertArguments>();
  CLI::App& command =
      add_command(app, "convert", "Make a layer of a cowfile of cowloop, or a cowfile of a layer",
                  "[--base IMAGE] [--cluster SIZE] [--format FORMAT] FROM OUT");
  command.add_option("FROM", arguments->in, "The cowfile or the layer. It stays as it is.")
      ->type_name("")
      ->required();
  command.add_option("OUT", arguments->out, "What to make. It must not exist.")->type_name("")->required();
  add_cowfile_base_option(command, arguments->base, "and the base of the layer.");
  add_cluster_option(command, [arguments](std::uint32_t shift) { arguments->cluster_shift = shift; });
  arguments->format_option = add_format_option(command, arguments->format);
  command.callback([arguments, &chosen] { chosen = [arguments] { return convert(*arguments); }; });
}

}  // namespace oxbow
