// SPDX-License-Identifier: Apache-2.0
// What a layer needs before it can answer: a state page in memory, room for one on the disk, a session.
#include <algorithm>
#include <cstring>

#include "formats/native/codec.h"
#include "os/canary.h"
#include "targets/cow/cow_keys.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/live_file.h"

namespace oxbow {

using What = PrepareStep::What;

void CowTarget::prepare(Preparation& preparation) noexcept {
  if (preparation.key == k_session_key) {
    prepare_session(preparation);
  } else if (preparation.key == k_ring_key) {
    prepare_ring(preparation);
  } else if ((preparation.key & k_room_key) != 0) {
    prepare_room(preparation, preparation.key & ~k_room_key);
  } else {
    prepare_page(preparation, preparation.key);
  }
}

void CowTarget::prepare_page(Preparation& preparation, std::uint64_t page) noexcept {
  if (pages_.loaded(page)) return;
  preparation.buffer_bytes = 2 * native::k_page_bytes;
  for (std::size_t slot = 0; slot < 2; ++slot) {
    preparation.steps.push_back({.what = What::read,
                                 .store = layer_.get(),
                                 .at = native::slot_at(head_.superblock, slot, page),
                                 .offset = slot * native::k_page_bytes,
                                 .length = native::k_page_bytes});
  }
}

// Both slots, before the first cluster of the page is acknowledged: a flush must not run out of space.
void CowTarget::prepare_room(Preparation& preparation, std::uint64_t page) noexcept {
  if (canary(Canary::slots_without_room)) return;
  for (std::size_t slot = 0; slot < 2; ++slot) {
    preparation.steps.push_back({.what = What::allocate,
                                 .store = layer_.get(),
                                 .at = native::slot_at(head_.superblock, slot, page),
                                 .offset = 0,
                                 .length = native::k_page_bytes});
  }
}

// The epoch grows durably before anything is written: one copy, a barrier, the other copy (durable with the
// next barrier). Two threads that both begin write the same bytes.
void CowTarget::prepare_session(Preparation& preparation) noexcept {
  if (session_begun_.load(std::memory_order_acquire)) return;
  preparation.buffer_bytes = 2 * native::k_superblock_bytes;
  // Room for the records first: no flush of this session may run out of space.
  for (const std::uint64_t at : head_.superblock.record_offset) {
    preparation.steps.push_back({.what = What::allocate,
                                 .store = layer_.get(),
                                 .at = at,
                                 .offset = 0,
                                 .length = native::k_record_bytes});
  }
  const std::uint32_t first = head_.stale_copy;
  preparation.steps.push_back({.what = What::write,
                               .store = layer_.get(),
                               .at = first * native::k_apart_bytes,
                               .offset = 0,
                               .length = native::k_superblock_bytes});
  preparation.steps.push_back({.what = What::sync, .store = layer_.get(), .at = 0, .offset = 0, .length = 0});
  preparation.steps.push_back({.what = What::write,
                               .store = layer_.get(),
                               .at = (1 - first) * native::k_apart_bytes,
                               .offset = native::k_superblock_bytes,
                               .length = native::k_superblock_bytes});
}

native::Superblock CowTarget::session_superblock() const noexcept {
  native::Superblock superblock = head_.superblock;
  superblock.version = native::k_version;  // 0, which was never frozen, has the same bytes without a ring
  superblock.epoch = epoch();
  superblock.sequence += 1;
  superblock.state = native::LayerState::in_use;
  superblock.boot_id = options_.boot_id;
  superblock.live_path = {};
  if (options_.live != nullptr) std::ranges::copy(options_.live->path(), superblock.live_path.begin());
  return superblock;
}

// More of the ring is written once, durably, so that records are pure overwrites from then on. Nothing that is
// alive lies there: chores come after a flush, and the first of an opening is a full one.
void CowTarget::prepare_ring(Preparation& preparation) noexcept {
  const Range part = ring_.unready();
  if (part.empty()) return;
  const std::uint64_t at = head_.superblock.ring_offset + part.offset;
  preparation.optional = true;
  preparation.buffer_bytes = part.length;
  preparation.steps.push_back(
      {.what = What::allocate, .store = layer_.get(), .at = at, .offset = 0, .length = part.length});
  preparation.steps.push_back(
      {.what = What::write, .store = &ring_.store(), .at = at, .offset = 0, .length = part.length});
  preparation.steps.push_back(
      {.what = What::sync, .store = &ring_.store(), .at = 0, .offset = 0, .length = 0});
}

void CowTarget::ring_prepared(const Preparation& preparation, IoStatus status) noexcept {
  if (!status.ok()) {
    ring_.stop_growing();
  } else if (preparation.buffer_bytes > 0) {
    ring_.made_ready({ring_.unready().offset, preparation.buffer_bytes});
  }
}

Step CowTarget::chore() noexcept {
  const bool wanted = ring_.on() && !all_wanted_ && !ring_.unready().empty();
  return wanted ? Step::prepare(*this, k_ring_key) : Step::ready(0);
}

void CowTarget::fill(Preparation& preparation) noexcept {
  if (preparation.key == k_ring_key) {
    const auto bytes = preparation.buffer.bytes();
    std::memset(bytes.data(), 0, bytes.size());
    return;
  }
  if (preparation.key != k_session_key || preparation.buffer_bytes == 0) return;
  session_begins();
  native::Superblock superblock = session_superblock();
  for (std::uint32_t i = 0; i < 2; ++i) {
    superblock.copy = i == 0 ? head_.stale_copy : 1 - head_.stale_copy;
    native::seal(superblock);
    std::memcpy(preparation.buffer.bytes().data() + (i * sizeof(superblock)), &superblock,
                sizeof(superblock));
  }
}

void CowTarget::prepared(Preparation& preparation, IoStatus status) noexcept {
  if (preparation.key == k_ring_key) return ring_prepared(preparation, status);
  if (!status.ok()) return;  // the request that asked fails; the next one asks again
  if (preparation.key == k_session_key) {
    live_counts();
    session_begun_.store(true, std::memory_order_release);
  } else if ((preparation.key & k_room_key) != 0) {
    pages_.set_room(preparation.key & ~k_room_key);
  } else if (preparation.buffer_bytes > 0) {
    preparation.refused = page_read(preparation, preparation.key);
  }
}

IoStatus CowTarget::page_read(const Preparation& preparation, std::uint64_t page) noexcept {
  std::array<native::StatePage, 2> slots;
  std::memcpy(slots.data(), preparation.buffer.bytes().data(), sizeof(slots));
  return install(page, choose_page(slots[0], slots[1], page, head_));
}

IoStatus CowTarget::install(std::uint64_t page, const PageContent& content) noexcept {
  // Several requests may have read the page; only the first may install it, since it may change from then on.
  const std::lock_guard lock(load_mutex_);
  if (pages_.loaded(page)) return {};
  if (content.damaged) {
    pages_.set_damaged(page);
    return {};
  }
  if (!content.empty) {
    if (const IoStatus installed = states_.install(page, content.page); !installed.ok()) return installed;
  }
  if (content.torn) pages_.set_dirty(page);
  pages_.set_loaded(page, content.next_slot);
  return {};
}

}  // namespace oxbow
