// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "cli/command.h"
#include "cli/cowfile.h"
#include "cli/progress.h"
#include "cli/size.h"
#include "jobs/unpack_layer.h"

namespace oxbow {
namespace {

ExitStatus unpack(const UnpackSpec& spec) {
  if (is_packed_cowfile(spec.packed)) {
    const std::string wrong = spec.keep_uuid ? "--keep-uuid" : spec.accept_base ? "--accept-base" : "";
    if (auto refused = refuse_option(wrong, "cannot unpack cowfile", spec.packed, "layers"); !refused)
      return fail(refused.error());
    return unpack_cowfile(spec.packed, spec.out, spec.replace);
  }
  Queue queue;
  ProgressBar bar("unpacking");
  const auto unpacked = unpack_layer(queue, spec, bar.feed());
  bar.clear();
  if (!unpacked) return fail(unpacked.error());
  const auto printed =
      print(fmt::format("unpacked {} into {}: {} of data from {}\n", spec.packed, spec.out,
                        format_size(unpacked->data_bytes), format_size(unpacked->packed_bytes)));
  return printed ? ExitStatus::done : fail(printed.error());
}

}  // namespace

void add_unpack(CLI::App& app, Chosen& chosen) {
  auto spec = std::make_shared<UnpackSpec>();
  CLI::App& command = add_command(app, "unpack", "Make a layer or cowfile of a packed one",
                                  "[--keep-uuid] [--accept-base] [--force] PACKED OUT");
  command.add_option("PACKED", spec->packed, "What oxbow pack made, or cowpack.")->type_name("")->required();
  command.add_option("OUT", spec->out, "The layer or cowfile to make.")->type_name("")->required();
  command.add_flag("--keep-uuid", spec->keep_uuid,
                   "Make the very layer that was packed, not another one like it: for a layer that is moved, "
                   "or that is the base of others. Its base isn't needed then.");
  add_accept_base_flag(command, spec->accept_base);
  command.add_flag("--force", spec->replace, "Replace OUT if it exists and nobody has it in use.");
  command.callback([spec, &chosen] { chosen = [spec] { return unpack(*spec); }; });
}

}  // namespace oxbow
