// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/cow_target.h"

#include <fmt/format.h>

#include <new>

#include "formats/native/codec.h"
#include "os/queue.h"
#include "stores/blocking.h"
#include "targets/argument.h"
#include "targets/cow/layer_edit.h"
#include "targets/cow/live_file.h"
#include "targets/cow/ring_scan.h"

namespace oxbow {

CowTarget::CowTarget(std::shared_ptr<Store> layer, std::shared_ptr<Target> base, Options options,
                     LayerHead head)
    : layer_(std::move(layer)),
      backing_(std::move(base), head.superblock.base_visible),
      options_(std::move(options)),
      head_(std::move(head)),
      size_(head_.superblock.size),
      data_offset_(head_.superblock.data_offset),
      shift_(head_.superblock.cluster_shift),
      cluster_bytes_(std::uint64_t{1} << shift_),
      states_(native::cluster_count(size_, shift_), options_.live),
      pages_((native::cluster_count(size_, shift_) + native::k_clusters_per_page - 1) /
             native::k_clusters_per_page),
      newest_record_slot_(head_.newest_record_slot),
      flush_number_(head_.flush_number),
      ring_(
          options_.writable ? options_.ring : nullptr, options_.ring_growth,
          options_.writable && options_.ring != nullptr ? ring_bytes_written(*layer_, head_.superblock) : 0) {
  ring_.continue_after(head_.ring_seq, head_.ring_tail);
}

Result<std::shared_ptr<CowTarget>> CowTarget::open(Queue& queue, std::shared_ptr<Store> layer,
                                                   std::shared_ptr<Target> base, Options options) {
  auto head = read_layer_head(queue, *layer);
  if (!head) return std::unexpected(head.error());
  if (is_merging(head->superblock) && !options.merging) {
    return std::unexpected(Error("cannot open layer", layer->describe(), k_merging_reason));
  }
  if (options.writable && !layer->writable()) {
    return std::unexpected(Error("cannot open layer for writing", layer->describe(), "it is read-only"));
  }
  const std::uint64_t foreign = head->superblock.read_only_compatible & ~native::k_known_read_only_compatible;
  if (options.writable && foreign != 0) {
    return std::unexpected(Error("cannot open layer for writing", layer->describe(),
                                 fmt::format("it uses features that this oxbow can only read ({:#x}): "
                                             "use a newer oxbow, or --read-only",
                                             foreign)));
  }
  const std::string where = layer->describe();
  try {
    std::shared_ptr<CowTarget> target(
        new CowTarget(std::move(layer), std::move(base), std::move(options), std::move(*head)));
    if (auto settled = target->settle(queue); !settled) return std::unexpected(settled.error());
    // What is adopted comes before anything that the disk says.
    if (auto adopted = target->adopt_live(queue); !adopted) return std::unexpected(adopted.error());
    if (auto loaded = target->load_last_pages(queue); !loaded) return std::unexpected(loaded.error());
    if (auto recovered = target->recover_ring(queue); !recovered) return std::unexpected(recovered.error());
    return target;
  } catch (const std::bad_alloc&) {
    return std::unexpected(Error::from_errno("cannot open layer", where, ENOMEM));
  }
}

Result<void> CowTarget::settle(Queue& queue) {
  if (!options_.writable) return {};
  const IoStatus settled = settle_head(queue, *layer_, head_);
  if (settled.ok()) return {};
  // What the barrier didn't write may be lost, whatever the live state says of it.
  failed();
  return std::unexpected(Error::from_errno("cannot open layer", layer_->describe(), settled.error_number()));
}

// After an unclean end the pages that the last flush was writing may be torn. They are read while the record
// that excuses them is the newest, and written again by the first flush of the next session.
Result<void> CowTarget::load_last_pages(Queue& queue) {
  if (!options_.writable || head_.superblock.state != native::LayerState::in_use) return {};
  for (const std::uint32_t entry : head_.last_pages) {
    const std::uint64_t page = entry & ~native::k_record_slot_bit;
    if (page >= pages_.size() || pages_.loaded(page)) continue;
    if (auto loaded = load_page(queue, page); !loaded) return std::unexpected(loaded.error());
  }
  return {};
}

Result<std::uint64_t> CowTarget::load_page(Queue& queue, std::uint64_t page) {
  std::array<native::StatePage, 2> slots;
  for (std::size_t slot = 0; slot < 2; ++slot) {
    const std::uint64_t at = native::slot_at(head_.superblock, slot, page);
    const IoStatus read = read_struct(queue, *layer_, at, slots[slot]);
    if (!read.ok()) {
      return std::unexpected(Error::from_errno(fmt::format("cannot read state page {}", page),
                                               layer_->describe(), read.error_number()));
    }
  }
  const PageContent content = choose_page(slots[0], slots[1], page, head_);
  if (content.torn && !content.damaged && !pages_.loaded(page))
    torn_.push_back(static_cast<std::uint32_t>(page));
  if (const IoStatus installed = install(page, content); !installed.ok()) {
    return std::unexpected(
        Error::from_errno("cannot open layer", layer_->describe(), installed.error_number()));
  }
  return content.empty ? 0 : content.page.ring_seq;
}

TargetStatus CowTarget::status() const {
  return {.name = "cow",
          .info = fmt::format("{}/{} {}", layer_->facts().allocated_bytes.value_or(0) / k_sector_bytes,
                              (size_ + k_sector_bytes - 1) / k_sector_bytes, cluster_bytes_ / k_sector_bytes),
          .table = escape_argument(layer_->facts().name) + " 0"};
}

void CowTarget::describe(std::vector<ChainPart>& chain) const {
  chain.push_back({.format = "oxb",
                   .size_bytes = size_,
                   .cluster_bytes = cluster_bytes_,
                   .store = layer_->facts(),
                   .live = options_.live == nullptr ? std::string() : options_.live->path(),
                   .without_live = options_.without_live,
                   .uuid = native::to_text(head_.superblock.uuid),
                   .epoch = head_.superblock.epoch,
                   .adopted = options_.adopt});
  if (backing_.base() != nullptr) backing_.base()->describe(chain);
}

}  // namespace oxbow
