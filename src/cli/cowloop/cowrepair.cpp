// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <optional>

#include "cli/cowloop/read_head.h"
#include "cli/cowloop/words.h"
#include "cli/progress.h"
#include "jobs/cowloop/repair_cowfile.h"

namespace oxbow::cowloop_commands {
namespace {

// Thread safety: a value.
struct Arguments {
  bool force = false;
  bool dry_run = false;
  bool verbose = false;
  std::string path;
};

std::optional<Arguments> parse(const Call& call) {
  Arguments arguments;
  for (int letter = 0; (letter = ::getopt(call.argc, call.argv, "fnv")) != -1;) {
    switch (letter) {
      case 'f':
        arguments.force = true;
        break;
      case 'n':
        arguments.dry_run = true;
        break;
      case 'v':
        arguments.verbose = true;
        break;
      default:
        return std::nullopt;
    }
  }
  if (call.argc - optind != 1) return std::nullopt;
  arguments.path = call.argv[optind];
  return arguments;
}

// How it ends when there is nothing to repair, or it can't be; nothing when it goes on.
std::optional<int> look_at_head(const Arguments& arguments) {
  const auto end = [](const std::string& text, int status) {
    complain(text);
    return status;
  };
  const auto head = read_head(arguments.path);
  if (!head) return end(text_of(head.error(), arguments.path), k_failed);
  if (head->packed)
    return end(fmt::format("cowfile {} cannot be repaired while packed", arguments.path), k_failed);
  if (head->dirty || arguments.force) return std::nullopt;
  return end(fmt::format("cowfile {} is not dirty", arguments.path), k_done);
}

// There may be as many lines as blocks, so they are not collected. That they could be printed is looked at in the end.
void print_corrections(Range blocks) {
  for (std::uint64_t block = blocks.offset; block < blocks.end(); ++block)
    std::fputs(fmt::format("data block {:>9} (offset {:>11}) not marked in bitmap; corrected\n", block,
                           block * cowloop::k_block_bytes)
                   .c_str(),
               stdout);
}

}  // namespace

int cowrepair(const Call& call) {
  const auto arguments = parse(call);
  if (!arguments) return wrong_usage(call);
  if (const auto ended = look_at_head(*arguments)) return *ended;
  Queue queue;
  ProgressBar bar("repairing");
  cowloop::RepairCowfile options{
      .dry_run = arguments->dry_run, .force = arguments->force, .progress = bar.feed()};
  if (arguments->verbose) options.on_corrected = print_corrections;
  const auto report = cowloop::repair_cowfile(queue, arguments->path, options);
  bar.clear();
  if (!report) {
    complain(call, report.error());
    return k_failed;
  }
  return tell(call, fmt::format("Number of corrections in bitmap: {}{}\n", report->corrected,
                                arguments->dry_run ? " (not done due to flag -n)" : ""));
}

}  // namespace oxbow::cowloop_commands
