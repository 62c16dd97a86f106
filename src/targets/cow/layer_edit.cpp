// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/layer_edit.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "formats/native/codec.h"
#include "os/canary.h"
#include "stores/blocking.h"
#include "targets/cow/layer_head.h"

namespace oxbow {
namespace {

using native::LayerState;
using native::Superblock;

// One change of a layer, and what its errors begin with. Thread safety: none.
class Edit {
 public:
  Edit(Queue& queue, Store& layer, const char* what) : queue_(queue), layer_(layer), what_(what) {}

  [[nodiscard]] Error refusal(std::string why) const { return {what_, layer_.describe(), std::move(why)}; }
  [[nodiscard]] Result<void> outcome(IoStatus status) const {
    if (status.ok()) return {};
    return std::unexpected(Error::from_errno(what_, layer_.describe(), status.error_number()));
  }

  // Fit to be changed: settled.
  [[nodiscard]] Result<LayerHead> read() const {
    auto head = read_layer_head(queue_, layer_);
    if (!head) return std::unexpected(refusal(head.error().why()));
    const std::uint64_t foreign =
        head->superblock.read_only_compatible & ~native::k_known_read_only_compatible;
    if (foreign != 0) {
      return std::unexpected(
          refusal(fmt::format("it uses features that this oxbow can only read ({:#x})", foreign)));
    }
    if (auto settled = outcome(settle_head(queue_, layer_, *head)); !settled) {
      return std::unexpected(settled.error());
    }
    return head;
  }
  // The same, of a layer that was closed cleanly.
  [[nodiscard]] Result<LayerHead> read_clean() const {
    auto head = read();
    if (!head || head->superblock.state == LayerState::clean) return head;
    return std::unexpected(refusal("it was not closed cleanly"));
  }

  // Both copies, durably.
  [[nodiscard]] Result<void> write(const LayerHead& head, Superblock superblock) const {
    superblock.sequence = head.superblock.sequence + 1;
    return outcome(write_superblocks(queue_, layer_, superblock, head.stale_copy));
  }
  [[nodiscard]] Result<void> sync() const { return outcome(sync_blocking(queue_, layer_)); }

  // Gives back the room of all clusters. The state pages stay: a punch that is cut off may leave a part of a page, and
  // that would be damage, while whole ones of an epoch that is over are nothing.
  [[nodiscard]] Result<void> punch(const Superblock& superblock) const {
    const std::uint64_t from = superblock.data_offset;
    if (layer_.size() <= from) return {};
    return outcome(
        run_blocking(queue_, [&](Io& io) { return layer_.discard(io, {from, layer_.size() - from}); }));
  }

 private:
  Queue& queue_;
  Store& layer_;
  const char* what_;
};

// A clean layer without any changes, in an epoch of its own.
void begin_anew(Superblock& superblock) noexcept {
  superblock.epoch += 1;
  superblock.absent_before = superblock.epoch;
  superblock.state = LayerState::clean;
  superblock.boot_id = {};
  superblock.live_path = {};
}

// The superblock, and the punch after it.
Result<void> drop_changes(const Edit& edit, const LayerHead& head, const Superblock& superblock,
                          bool punch_first) {
  if (punch_first) {
    if (auto punched = edit.punch(superblock); !punched) return punched;
  }
  if (auto written = edit.write(head, superblock); !written) return written;
  if (auto punched = edit.punch(superblock); !punched) return punched;
  return edit.sync();
}

// Slots that the last flush was cut off in would be damage once the layer is clean and the record that excuses them is
// dead. Until then they may as well be slots that were never written.
Result<void> clear_torn_slots(Queue& queue, Store& layer, const Edit& edit, const LayerHead& head) {
  if (head.superblock.state == LayerState::clean) return {};
  const auto page = std::make_unique<native::StatePage>();
  for (const std::uint32_t entry : head.last_pages) {
    const std::uint32_t slot = (entry & native::k_record_slot_bit) != 0 ? 1U : 0U;
    const std::uint64_t index = entry & ~native::k_record_slot_bit;
    if (index >= head.superblock.page_count) continue;
    const std::uint64_t at = native::slot_at(head.superblock, slot, index);
    if (auto read = edit.outcome(read_struct(queue, layer, at, *page)); !read) return read;
    if (native::inspect(*page, index, slot, head.superblock) != native::SlotState::damaged) continue;
    *page = {};
    if (auto written = edit.outcome(write_struct(queue, layer, at, *page)); !written) return written;
  }
  return edit.sync();
}

}  // namespace

Result<void> reset_layer(Queue& queue, Store& layer) {
  const Edit edit(queue, layer, "cannot reset layer");
  const auto head = edit.read();
  if (!head) return std::unexpected(head.error());
  if (is_merging(head->superblock)) return std::unexpected(edit.refusal(k_merging_reason));
  if (auto cleared = clear_torn_slots(queue, layer, edit, *head); !cleared) return cleared;
  Superblock superblock = head->superblock;
  begin_anew(superblock);
  return drop_changes(edit, *head, superblock, canary(Canary::reset_punches_first));
}

namespace {

// The file, as long as `superblock` wants it, and zeros where a cluster that was cut short by the device's end goes on.
Result<void> extend_file(Queue& queue, Store& layer, const Edit& edit, const Superblock& before,
                         const Superblock& superblock) {
  const std::uint64_t length = native::file_bytes(superblock);
  if (layer.size() < length) {
    const auto grown = edit.outcome(run_blocking(queue, [&](Io& io) { return layer.grow(io, length); }));
    if (!grown) return grown;
  }
  const std::uint64_t end = before.data_offset + before.size;
  const std::uint64_t tail = native::file_bytes(before) - end;
  if (tail == 0) return {};
  return edit.outcome(
      run_blocking(queue, [&](Io& io) { return layer.zero(io, {end, tail}, ZeroMode::allocate); }));
}

}  // namespace

Result<void> grow_layer(Queue& queue, Store& layer, std::uint64_t size_bytes) {
  const Edit edit(queue, layer, "cannot resize layer");
  const auto head = edit.read_clean();
  if (!head) return std::unexpected(head.error());
  const Superblock& before = head->superblock;
  if (is_merging(before)) return std::unexpected(edit.refusal(k_merging_reason));
  if (size_bytes < before.size) {
    return std::unexpected(edit.refusal(
        fmt::format("it has {} bytes and never shrinks, so not to {}", before.size, size_bytes)));
  }
  if (size_bytes > before.max_size) {
    return std::unexpected(
        edit.refusal(fmt::format("{} bytes are more than its max_size, {}, which was chosen when it was made",
                                 size_bytes, before.max_size)));
  }
  if (size_bytes == before.size) return {};
  Superblock superblock = before;
  superblock.size = size_bytes;
  if (canary(Canary::grow_superblock_first)) {
    if (auto written = edit.write(*head, superblock); !written) return written;
    return extend_file(queue, layer, edit, before, superblock);
  }
  if (auto extended = extend_file(queue, layer, edit, before, superblock); !extended) return extended;
  if (auto synced = edit.sync(); !synced) return synced;
  return edit.write(*head, superblock);
}

Result<void> begin_merge(Queue& queue, Store& layer) {
  const Edit edit(queue, layer, "cannot merge layer");
  const auto head = edit.read_clean();
  if (!head) return std::unexpected(head.error());
  if (is_merging(head->superblock)) return {};
  if (canary(Canary::merge_without_flag)) return {};
  Superblock superblock = head->superblock;
  superblock.incompatible |= native::k_incompatible_merging;
  return edit.write(*head, superblock);
}

Result<void> end_merge(Queue& queue, Store& layer, const native::BaseRecord& base) {
  const Edit edit(queue, layer, "cannot merge layer");
  const auto head = edit.read_clean();
  if (!head) return std::unexpected(head.error());
  Superblock superblock = head->superblock;
  begin_anew(superblock);
  superblock.incompatible &= ~native::k_incompatible_merging;
  superblock.base = base;
  // The base holds the whole device now, also what was beyond its end before.
  superblock.base_visible = std::min(base.size, superblock.size);
  return drop_changes(edit, *head, superblock, canary(Canary::merge_punches_first));
}

}  // namespace oxbow
