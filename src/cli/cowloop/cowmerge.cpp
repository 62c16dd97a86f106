// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <optional>

#include "cli/command.h"
#include "cli/cowloop/read_head.h"
#include "cli/cowloop/words.h"
#include "cli/progress.h"
#include "jobs/cowloop/merge_cowfile.h"
#include "stores/file/file_store.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow::cowloop_commands {
namespace {

std::string text_of(const Call& call, const HeadError& error, const std::string& path) {
  switch (error.kind) {
    case HeadError::Kind::not_opened:
      return fmt::format("{} - can not open {}: {}", call.program, path, error.why);
    case HeadError::Kind::not_read:
      return "read of cowheader: " + error.why;
    case HeadError::Kind::no_cowfile:
    case HeadError::Kind::unknown_version:
      break;
  }
  return cowloop_commands::text_of(error, path);
}

// What of the cowfile is told before the read-only file is looked at; nothing when it may be merged.
std::optional<std::string> refused_cowfile(const Call& call, const std::string& path,
                                           const std::expected<cowloop::Head, HeadError>& head) {
  if (!head) return text_of(call, head.error(), path);
  if (head->packed) return fmt::format("cowfile {} is packed (cowpack -u needed)", path);
  // One that is kept in order by nobody was being emptied by a merge, which goes on.
  if (head->dirty && !(head->kept_in_order() && head->boot_id == cowloop::Uuid{}))
    return fmt::format("cowfile {} is dirty (repair needed)", path);
  return std::nullopt;
}

// What can be told of the read-only file in the old words; nothing when that is no reason to refuse it.
std::optional<std::string> refused_base(Queue& queue, const Call& call, const std::string& path,
                                        const std::string& cowfile, const cowloop::Head& head) {
  const UniqueFd file(::open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) return fmt::format("{} - can not open {}: {}", call.program, path, std::strerror(errno));
  const auto store = FileStore::open(path, {});
  // While a merge that was cut off is not finished the fingerprint is no file's.
  if (!store || head.merging) return std::nullopt;
  const auto fingerprint = cowloop::fingerprint_of(queue, "cannot read read-only file", **store);
  if (!fingerprint) return call.program + ": " + fingerprint.error().text();
  if (*fingerprint == head.fingerprint) return std::nullopt;
  return fmt::format("{} - fingerprint of {} does not correspond with {}", call.program, path, cowfile);
}

// Asks as long as both files are held; nothing when it was not agreed to.
Result<std::optional<std::uint64_t>> ask_and_merge(Queue& queue, const std::string& base,
                                                   const std::string& cowfile) {
  auto merge = cowloop::CowfileMerge::open(queue, base, cowfile);
  if (!merge) return std::unexpected(merge.error());
  const auto asked =
      print(fmt::format("Really want to modify {} with updates from {} (Y/N)? ", base, cowfile));
  if (!asked) return std::unexpected(asked.error());
  if (std::getchar() != 'Y') return std::nullopt;
  ProgressBar bar("merging");
  const auto merged = (*merge)->run(cowloop::Afterwards::keep, bar.feed());
  bar.clear();
  if (!merged) return std::unexpected(merged.error());
  return (*merge)->blocks();
}

}  // namespace

int cowmerge(const Call& call) {
  if (call.argc != 3) return wrong_usage(call);
  const std::string base = call.argv[1];
  const std::string cowfile = call.argv[2];
  Queue queue;
  const auto head = read_head(cowfile);
  auto refused = refused_cowfile(call, cowfile, head);
  if (!refused) refused = refused_base(queue, call, base, cowfile, *head);
  if (refused) {
    complain(*refused);
    return k_failed;
  }
  const auto merged = ask_and_merge(queue, base, cowfile);
  if (!merged) {
    complain(call, merged.error());
    return k_failed;
  }
  if (!*merged) return k_done;
  return tell(call, fmt::format("Number of blocks modified in {}: {}\n", base, **merged));
}

}  // namespace oxbow::cowloop_commands
