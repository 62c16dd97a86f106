// SPDX-License-Identifier: Apache-2.0
#include "jobs/check_layer.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <memory>

#include "formats/native/codec.h"
#include "jobs/scan_pages.h"
#include "stores/blocking.h"
#include "targets/cow/layer_head.h"

namespace oxbow {
namespace {

using native::SlotState;

constexpr std::uint64_t k_low_bits = 0x5555'5555'5555'5555;

void check_superblocks(const LayerHead& head, CheckReport& report) {
  for (std::size_t copy = 0; copy < 2; ++copy) {
    if (head.copy_faults[copy].empty()) continue;
    report.findings.push_back(
        {.where = fmt::format("superblock copy {}", copy),
         .why = head.copy_faults[copy] + "; the other copy is sound and serves instead"});
  }
}

Result<void> check_records(Queue& queue, Store& layer, const LayerHead& head, CheckReport& report) {
  const bool in_use = head.superblock.state == native::LayerState::in_use;
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    const auto record = std::make_unique<native::FlushRecord>();
    const IoStatus read = read_struct(queue, layer, head.superblock.record_offset[slot], *record);
    if (!read.ok()) {
      return std::unexpected(Error::from_errno(fmt::format("cannot read flush record {}", slot),
                                               layer.describe(), read.error_number()));
    }
    if (native::inspect(*record, slot, head.superblock) != SlotState::damaged) continue;
    // The record that the last flush was writing may be torn; the other one is then the newest.
    const bool torn = in_use && slot != head.newest_record_slot;
    report.findings.push_back({.where = fmt::format("flush record {}", slot),
                               .why = torn ? "the last flush was cut off while it wrote it"
                                           : "its checksum or a field of it is wrong",
                               .damage = !torn});
  }
  return {};
}

// The bytes of the device that a state page governs, as far as the device reaches.
Range governed(std::uint64_t page, const native::Superblock& superblock) {
  const std::uint64_t bytes = native::k_clusters_per_page << superblock.cluster_shift;
  const std::uint64_t start = std::min(page * bytes, superblock.size);
  return {start, std::min(bytes, superblock.size - start)};
}

std::string describe(const native::StatePage& page, SlotState state) {
  if (state == SlotState::never_written) return "never written";
  return fmt::format("epoch {}, flush {}", page.epoch, page.flush_number);
}

std::string reason(const native::StatePage& page, std::uint64_t index, std::uint32_t slot,
                   const native::Superblock& superblock) {
  if (native::inspect(page, index, slot, superblock) != SlotState::damaged)
    return "a cluster has an invalid state";
  if (page.magic == native::k_page_magic && page.index == index && page.slot == slot &&
      page.epoch > superblock.epoch) {
    return fmt::format("its epoch {} is above the layer's, {}", page.epoch, superblock.epoch);
  }
  return "its checksum or a field of it is wrong";
}

void check_slots(std::uint64_t index, const PageSlots& slots, const LayerHead& head,
                 const PageContent& content, CheckReport& report) {
  for (std::uint32_t slot = 0; slot < 2; ++slot) {
    const SlotState state = native::inspect(slots[slot], index, slot, head.superblock);
    const bool bad =
        state == SlotState::damaged || (state == SlotState::valid && native::has_invalid_state(slots[slot]));
    if (!bad) continue;
    const SlotState other = native::inspect(slots[1 - slot], index, 1 - slot, head.superblock);
    const std::string why = reason(slots[slot], index, slot, head.superblock);
    report.findings.push_back(
        {.where = fmt::format("state page {} slot {}", index, slot),
         .why =
             content.damaged
                 ? fmt::format("{}; the other slot: {}", why,
                               other == SlotState::damaged ? "damaged too" : describe(slots[1 - slot], other))
                 : fmt::format("the last flush was cut off while it wrote it; the other slot holds: {}",
                               describe(slots[1 - slot], other)),
         .damage = content.damaged,
         .range = content.damaged ? governed(index, head.superblock) : Range{}});
  }
}

void count_clusters(const native::StatePage& page, CheckReport& report) {
  for (const native::LeafWords& leaf : page.leaves) {
    for (const std::uint64_t word : leaf) {
      const std::uint64_t high = (word >> 1) & k_low_bits;
      report.data_clusters += static_cast<std::uint64_t>(std::popcount(high));
      report.zero_clusters += static_cast<std::uint64_t>(std::popcount(word & k_low_bits & ~high));
    }
  }
}

}  // namespace

bool CheckReport::damaged() const noexcept { return std::ranges::any_of(findings, &Finding::damage); }

Result<CheckReport> check_layer(Queue& queue, Store& layer) {
  const auto head = read_layer_head(queue, layer);
  if (!head) return std::unexpected(head.error());
  CheckReport report;
  report.superblock = head->superblock;
  check_superblocks(*head, report);
  if (auto records = check_records(queue, layer, *head, report); !records)
    return std::unexpected(records.error());
  const auto scanned =
      scan_pages(queue, layer, head->superblock, [&](std::uint64_t index, const PageSlots& slots) {
        const PageContent content = choose_page(slots[0], slots[1], index, *head);
        ++report.pages_checked;
        check_slots(index, slots, *head, content, report);
        if (!content.damaged && !content.empty) count_clusters(content.page, report);
      });
  if (!scanned) return std::unexpected(scanned.error());
  return report;
}

}  // namespace oxbow
