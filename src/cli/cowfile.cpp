// SPDX-License-Identifier: Apache-2.0
#include "cli/cowfile.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <map>

#include "cli/confirm.h"
#include "cli/progress.h"
#include "cli/size.h"
#include "jobs/cowloop/create_cowfile.h"
#include "jobs/cowloop/merge_cowfile.h"
#include "jobs/cowloop/pack_cowfile.h"
#include "jobs/cowloop/unpack_cowfile.h"

namespace oxbow {

using cowloop::FileKind;

CLI::Option* add_format_option(CLI::App& app, LayerFormat& format) {
  static const std::map<std::string, LayerFormat> k_names{
      {"oxb", LayerFormat::oxb}, {"cowloop", LayerFormat::cowloop}, {"cowloop-32", LayerFormat::cowloop_32}};
  return app
      .add_option_function<std::string>(
          "--format", [&format](const std::string& name) { format = k_names.at(name); },
          "What to make: oxb, a layer; cowloop, a cowfile as cowloop writes it on 64-bit machines; or "
          "cowloop-32, as "
          "on 32-bit machines, of less than 4 TiB.")
      ->type_name("FORMAT")
      ->check([](const std::string& name) {
        return k_names.contains(name) ? std::string() : "a format is oxb, cowloop or cowloop-32";
      });
}

cowloop::Layout layout_of(LayerFormat format) noexcept {
  return format == LayerFormat::cowloop_32 ? cowloop::Layout::bytes_4 : cowloop::Layout::bytes_8;
}

CLI::Option* add_cowfile_base_option(CLI::App& app, std::optional<std::string>& base,
                                     const std::string& use) {
  return app.add_option("--base", base, "Of a cowfile: the read-only file that it belongs to, " + use)
      ->type_name("IMAGE");
}

bool is_cowfile(const std::string& path) {
  Queue queue;
  return cowloop::kind_of_file(queue, path) == FileKind::cowfile;
}

bool is_packed_cowfile(const std::string& path) {
  Queue queue;
  return cowloop::kind_of_file(queue, path) != FileKind::other;
}

Result<void> refuse_option(const std::string& option, const std::string& what, const std::string& path,
                           const std::string& kind) {
  if (option.empty()) return {};
  return std::unexpected(Error(what, path, option + " is for " + kind));
}

ExitStatus create_cowfile(const std::string& base, const std::string& path, LayerFormat format) {
  Queue queue;
  const auto created =
      cowloop::create_cowfile(queue, {.base = base, .path = path, .layout = layout_of(format)});
  if (!created) return fail(created.error());
  if (created->cut_off > 0)
    std::fprintf(
        stderr,
        "oxbow: warning: %s: its last %llu bytes are less than a block of %llu and no part of the device\n",
        base.c_str(), static_cast<unsigned long long>(created->cut_off),
        static_cast<unsigned long long>(cowloop::k_block_bytes));
  return ExitStatus::done;
}

ExitStatus merge_cowfile(const std::string& path, const std::optional<std::string>& base, bool yes) {
  constexpr const char* k_cannot = "cannot merge cowfile";
  if (!base) return fail(Error(k_cannot, path, "a cowfile doesn't know its read-only file: --base names it"));
  Queue queue;
  auto merge = cowloop::CowfileMerge::open(queue, *base, path);
  if (!merge) return fail(merge.error());
  const std::string what = fmt::format(
      "{} {} blocks ({}) from cowfile {} into its read-only file {} ({}).\nWhat that held there before is "
      "lost. Other "
      "cowfiles over it will refuse it from then on.\n",
      (*merge)->resumed() ? "This resumes a merge that was cut off, and writes" : "This writes",
      (*merge)->blocks(), format_size((*merge)->blocks() * cowloop::k_block_bytes), path, *base,
      format_size((*merge)->base_bytes()));
  if (auto agreed = confirm(what, yes, k_cannot, path); !agreed) return fail(agreed.error());
  ProgressBar bar("merging");
  const auto merged = (*merge)->run(cowloop::Afterwards::empty, bar.feed());
  bar.clear();
  if (merged) return ExitStatus::done;
  return fail(Error(merged.error().what(), merged.error().where(),
                    merged.error().why() + "; the cowfile still has its blocks: merge it again"));
}

ExitStatus pack_cowfile(const std::string& path, const std::string& out, bool gzip, bool replace) {
  Queue queue;
  ProgressBar bar("packing");
  const auto packed = cowloop::pack_cowfile(
      queue, {.cowfile = path, .out = out, .gzip = gzip, .replace = replace}, bar.feed());
  bar.clear();
  if (!packed) return fail(packed.error());
  const auto printed = print(fmt::format("packed {} into {}: {} of data in {}\n", path, out,
                                         format_size(packed->data_bytes), format_size(packed->packed_bytes)));
  return printed ? ExitStatus::done : fail(printed.error());
}

ExitStatus unpack_cowfile(const std::string& path, const std::string& out, bool replace) {
  Queue queue;
  ProgressBar bar("unpacking");
  const auto head =
      cowloop::unpack_cowfile(queue, {.packed = path, .out = out, .replace = replace}, bar.feed());
  bar.clear();
  if (!head) return fail(head.error());
  const auto printed = print(fmt::format("unpacked {} into {}: {} of data\n", path, out,
                                         format_size(head->used_blocks * cowloop::k_block_bytes)));
  return printed ? ExitStatus::done : fail(printed.error());
}

}  // namespace oxbow
