// SPDX-License-Identifier: Apache-2.0
#include "targets/cowloop/cowloop_target.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <new>

#include "os/canary.h"
#include "os/queue.h"
#include "stores/blocking.h"
#include "targets/argument.h"
#include "targets/cow/backing.h"
#include "targets/cow/live_file.h"
#include "targets/cowloop/bitmap_survey.h"
#include "targets/cowloop/map_page.h"
#include "targets/cowloop/pair_checks.h"
#include "targets/linear/linear_target.h"

namespace oxbow {
namespace {

constexpr auto k_cannot_open = "cannot open cowfile";

// Read-only, and without what is left of the file behind its last whole block.
std::unique_ptr<Backing> backing_over(std::shared_ptr<Store> base, const cowloop::Head& head) {
  std::string name = base->facts().name;
  return std::make_unique<Backing>(
      std::make_shared<LinearTarget>(std::move(base), std::move(name), Range{0, head.device_bytes()}, false),
      head.device_bytes());
}

}  // namespace

CowloopTarget::CowloopTarget(std::shared_ptr<Store> cowfile, std::shared_ptr<Store> base, Options options,
                             const cowloop::Head& head)
    : cowfile_(std::move(cowfile)),
      base_(std::move(base)),
      backing_(backing_over(base_, head)),
      options_(std::move(options)),
      head_(head),
      states_(head_.base_blocks, options_.writable ? options_.live : nullptr),
      pages_(cowloop::map_pages(head_.base_blocks)),
      dirty_(head_.dirty),
      session_left_(head_.session_left),
      bits_durable_(!head_.dirty) {}

CowloopTarget::~CowloopTarget() = default;

Result<std::shared_ptr<CowloopTarget>> CowloopTarget::open(Queue& queue, std::shared_ptr<Store> cowfile,
                                                           std::shared_ptr<Store> base, Options options) {
  const std::string where = cowfile->describe();
  if (options.writable && !cowfile->writable())
    return std::unexpected(Error("cannot open cowfile for writing", where, "it is read-only"));
  const auto head = cowloop::read_head(queue, k_cannot_open, *cowfile);
  if (!head) return std::unexpected(head.error());
  try {
    Store& read_only = *base;
    std::shared_ptr<CowloopTarget> target(
        new CowloopTarget(std::move(cowfile), std::move(base), std::move(options), *head));
    if (auto checked = target->check(queue, read_only); !checked) return std::unexpected(checked.error());
    if (auto taken = target->take_states_over(queue); !taken) return std::unexpected(taken.error());
    return target;
  } catch (const std::bad_alloc&) {
    return std::unexpected(Error::from_errno(k_cannot_open, where, ENOMEM));
  }
}

// Whatever may be wrong with the pair, before anything is written.
Result<void> CowloopTarget::check(Queue& queue, Store& base) {
  const auto state = cowloop::check_state(k_cannot_open, *cowfile_, head_, cowloop::IfDirty::refuse,
                                          "--repair, or oxbow repair, finds those that are not all zeros");
  if (!state) return state;
  if (auto length = cowloop::check_length(k_cannot_open, *cowfile_, head_); !length) return length;
  if (auto pair = cowloop::check_base(queue, k_cannot_open, *cowfile_, head_, base); !pair) return pair;
  used_ = head_.used_blocks;
  used_known_ = !head_.dirty;
  if (head_.map_bytes > cowloop::k_counted_at_open_bytes) return {};
  const auto survey = cowloop::survey_bitmap(queue, k_cannot_open, *cowfile_, head_);
  if (!survey) return std::unexpected(survey.error());
  if (auto why = cowloop::contradiction(*survey, head_, cowfile_->size()))
    return std::unexpected(Error(k_cannot_open, cowfile_->describe(), std::move(*why)));
  used_ = survey->used;
  used_known_ = true;
  return {};
}

// What the live file has comes before anything that the disk says, and is to be flushed. Who only reads has a copy, and
// leaves the file to who comes to write.
Result<void> CowloopTarget::take_states_over(Queue& queue) {
  if (options_.adopt) {
    const auto damaged = [&] {
      return std::unexpected(Error("cannot use live state", options_.live->path(),
                                   "it is damaged: its states contradict each other"));
    };
    if (options_.writable) {
      if (!states_.adopt()) return damaged();
    } else {
      StateMap left(head_.base_blocks, options_.live);
      if (!left.adopt()) return damaged();
      for (const std::uint64_t leaf : left.used_leaves()) {
        native::LeafWords words{};
        (void)left.copy_leaf(leaf, words);
        if (!states_.install_leaf(leaf, words).ok()) throw std::bad_alloc();
      }
    }
    constexpr std::uint64_t k_leaves = cowloop::k_map_page_blocks / native::k_clusters_per_leaf;
    for (const std::uint64_t leaf : states_.used_leaves()) {
      const std::uint64_t page = leaf / k_leaves;
      if (pages_.loaded(page)) continue;
      if (auto loaded = load_page_now(queue, page); !loaded) return loaded;
      // Nobody knows which of them the last process had written.
      if (!canary(Canary::live_pages_not_dirty)) pages_.set_dirty(page);
    }
    // The file is marked already, and completed writes wait to be flushed.
    session_begun_ = options_.writable;
  }
  if (!options_.writable || cowfile_->size() >= head_.file_bytes()) return {};
  const IoStatus grown = run_blocking(queue, [&](Io& io) { return cowfile_->grow(io, head_.file_bytes()); });
  if (grown.ok()) return {};
  return std::unexpected(
      Error::from_errno(fmt::format("cannot make cowfile {} bytes long", head_.file_bytes()),
                        cowfile_->describe(), grown.error_number()));
}

Result<void> CowloopTarget::load_page_now(Queue& queue, std::uint64_t page) {
  const Range at = cowloop::map_page_place(head_, page);
  std::array<std::byte, cowloop::k_map_page_bytes> bits{};
  IoStatus status = read_blocking(queue, *cowfile_, at.offset, std::span(bits).first(at.length));
  if (status.ok()) status = install(page, std::span(bits).first(at.length));
  if (status.ok()) return {};
  return std::unexpected(Error::from_errno(fmt::format("cannot read bitmap page {}", page),
                                           cowfile_->describe(), status.error_number()));
}

std::optional<std::uint64_t> CowloopTarget::used_blocks() const noexcept {
  if (!used_known_.load(std::memory_order_acquire)) return std::nullopt;
  return used_.load(std::memory_order_relaxed);
}

TargetStatus CowloopTarget::status() const {
  const auto used = used_blocks();
  return {.name = "cowloop",
          .info = fmt::format("{}/{} {}", used ? std::to_string(*used) : "?", head_.base_blocks,
                              dirty_.load(std::memory_order_acquire) ? "dirty" : "clean"),
          .table = escape_argument(base_->facts().name) + " " + escape_argument(cowfile_->facts().name)};
}

void CowloopTarget::describe(std::vector<ChainPart>& chain) const {
  chain.push_back(
      {.format = "cowloop",
       .size_bytes = size(),
       .cluster_bytes = cowloop::k_block_bytes,
       .store = cowfile_->facts(),
       .live = options_.live == nullptr || !options_.writable ? std::string() : options_.live->path(),
       .without_live = options_.without_live,
       .adopted = options_.adopt,
       .used_clusters = used_blocks(),
       .state = dirty_.load(std::memory_order_acquire) ? "dirty" : "clean"});
  backing_->base()->describe(chain);
}

}  // namespace oxbow
