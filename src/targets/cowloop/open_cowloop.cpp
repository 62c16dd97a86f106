// SPDX-License-Identifier: Apache-2.0
#include "targets/cowloop/open_cowloop.h"

#include <fmt/format.h>

#include <chrono>
#include <thread>
#include <utility>

#include "os/file_lock.h"
#include "os/log.h"
#include "stores/open_stores.h"
#include "targets/argument.h"
#include "targets/cowloop/cowloop_live.h"
#include "targets/cowloop/pair_checks.h"

namespace oxbow {
namespace {

constexpr auto k_cannot_open = "cannot open cowfile";
constexpr std::chrono::milliseconds k_patience{2000};
constexpr std::chrono::milliseconds k_pause{10};

// The kernel lets go of a killed process's files only after the last of its requests, and a cowfile doesn't tell who
// holds it: so whoever finds it in use waits a little.
Result<std::shared_ptr<FileStore>> open_when_let_go(OpenContext& context, const std::string& path) {
  const FileOptions options{.writable = context.writable,
                            .direct = context.direct,
                            .reserve_bytes = context.reserve_bytes,
                            .lock = context.writable ? LockMode::exclusive : LockMode::shared};
  const auto end = std::chrono::steady_clock::now() + k_patience;
  for (;;) {
    auto store = context.stores.open_file(path, options);
    if (store) return store;
    const bool locked = store.error().why() == k_in_use_reason;
    if (locked && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(k_pause);
      continue;
    }
    return std::unexpected(Error(k_cannot_open, path, store.error().why()));
  }
}

Result<std::shared_ptr<FileStore>> open_read_only(OpenContext& context, const std::string& path) {
  auto store =
      context.stores.open_file(path, {.writable = false, .direct = context.direct, .lock = LockMode::shared});
  if (!store) return std::unexpected(Error("cannot open read-only file", path, store.error().why()));
  return store;
}

Result<CowloopTarget::Options> options_for(OpenContext& context, const std::string& path,
                                           FileStore& cowfile) {
  CowloopTarget::Options options{.writable = context.writable};
  const auto head = cowloop::read_head(context.queue, k_cannot_open, cowfile);
  if (!head) return std::unexpected(head.error());
  auto left = cowloop::find_left_live(path, *head, cowfile.identity(), context.live);
  if (!left) return std::unexpected(left.error());
  // The end before may have been a failed barrier, which a clean head does not rule out: blocks that were there already
  // may have been overwritten. What counts is what the medium has.
  if (!left->adopt && (head->dirty || context.writable)) cowfile.drop_cache();
  if (!context.writable) {
    options.live = left->adopt ? std::move(left->file) : nullptr;
    options.adopt = left->adopt;
    return options;
  }
  cowloop::LiveChoice live = cowloop::choose_live(*head, cowfile.identity(), context.live, std::move(*left));
  options.boot_id = live.boot_id;
  options.session_id = live.session_id;
  options.live = std::move(live.live);
  options.adopt = live.adopt;
  options.without_live = std::move(live.why_none);
  return options;
}

}  // namespace

Result<std::shared_ptr<CowloopTarget>> open_cowloop(OpenContext& context, const std::string& base,
                                                    const std::string& cowfile) {
  auto read_only = open_read_only(context, base);
  if (!read_only) return std::unexpected(read_only.error());
  auto store = open_when_let_go(context, cowfile);
  if (!store) return std::unexpected(store.error());
  if (auto regular = cowloop::check_regular(k_cannot_open, **store); !regular)
    return std::unexpected(regular.error());
  const auto known = context.pairs.find(store->get());
  if (known != context.pairs.end()) {
    if (auto pair = known->second.lock()) {
      if (&pair->base() == read_only->get()) return pair;
      return std::unexpected(
          Error(k_cannot_open, cowfile, "it is in use already over " + pair->base().describe()));
    }
  }
  auto options = options_for(context, cowfile, **store);
  if (!options) return std::unexpected(options.error());
  auto pair = CowloopTarget::open(context.queue, *store, *read_only, std::move(*options));
  if (!pair) return pair;
  if (const std::uint64_t lost = cowloop::cut_off_bytes((*read_only)->size()); lost > 0 && context.log) {
    context.log->write(LogLevel::warning, "cowloop",
                       fmt::format("{}: its last {} bytes are no whole block of {} and are not part of the "
                                   "device",
                                   base, lost, cowloop::k_block_bytes));
  }
  context.pairs[store->get()] = *pair;
  return pair;
}

Result<MadeTarget> make_cowloop_target(OpenContext& context, std::span<const std::string> args,
                                       std::uint64_t /*length_bytes*/) {
  if (args.size() < 2 || args.size() > 3) {
    return std::unexpected(Error("cannot make target cowloop", "RDOFILE COWFILE [SECTORS]",
                                 fmt::format("it takes 2 or 3 arguments, not {}", args.size())));
  }
  const auto offset = offset_in_layer("cowloop", args.subspan(1));
  if (!offset) return std::unexpected(offset.error());
  auto pair = open_cowloop(context, args[0], args[1]);
  if (!pair) return std::unexpected(pair.error());
  return MadeTarget{.target = *pair, .offset = *offset};
}

}  // namespace oxbow
