// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "cli/cowloop/read_head.h"
#include "cli/cowloop/words.h"
#include "jobs/cowloop/check_cowfile.h"

namespace oxbow::cowloop_commands {
namespace {

// How many blocks it has, as the head says. Oxbow's mark stands in the place of that, and tells that the bitmap can be
// counted.
Result<std::uint64_t> used_blocks(const cowloop::Head& head, const std::string& path) {
  if (!head.kept_in_order()) return head.used_blocks;
  Queue queue;
  const auto info = cowloop::cowfile_info(queue, path);
  if (!info) return std::unexpected(info.error());
  return info->survey.used;
}

std::string text_of(const cowloop::Head& head, std::uint64_t used, const std::string& path) {
  std::string out = fmt::format("\nInfo about cowfile {}:\n", path);
  const auto line = [&](const char* name, const auto& value, const std::string& more) {
    out += fmt::format("{:>18}: {:>9}{}\n", name, value, more);
  };
  const std::string of_unit = fmt::format(" (of {} bytes)", head.block_bytes);
  line("state cowfile", head.dirty ? "dirty" : "clean", head.packed ? " packed" : "");
  line("header-version", head.version, "");
  line("data offset", head.data_offset, "");
  line("mapunit", head.block_bytes, "");
  line("bitmap-blocks", head.map_bytes / head.block_bytes, of_unit);
  line("cowblocks in use", used, of_unit);
  line("size rdofile", head.base_blocks, of_unit);
  return out;
}

}  // namespace

int cowlist(const Call& call) {
  if (call.argc < 2) return wrong_usage(call);
  const std::string path = call.argv[1];
  const auto head = read_head(path);
  if (!head) {
    complain(text_of(head.error(), path));
    return k_failed;
  }
  const auto used = used_blocks(*head, path);
  if (used) return tell(call, text_of(*head, *used, path));
  complain(call, used.error());
  return k_failed;
}

}  // namespace oxbow::cowloop_commands
