// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>
#include <optional>

#include "formats/native/codec.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"
#include "targets/cow/layer_head.h"

namespace oxbow {

// Superblocks and flush records as they are stored, and what follows from them. Thread safety: a value.
struct RawHead {
  std::array<native::Superblock, 2> copies{};
  std::array<IoStatus, 2> copy_read;
  std::array<native::SuperblockFault, 2> copy_faults;
  // Why no copy can be gone by, as an opening says it; nothing follows then.
  std::optional<Error> unusable;

  // From here on only when usable.
  std::uint32_t newer_copy = 0;
  LayerHead head;               // as an opening sees it
  bool truncated = false;       // shorter than its superblock says
  bool metadata_there = false;  // long enough for all but data
  std::array<std::unique_ptr<native::FlushRecord>, 2> records;
  std::array<IoStatus, 2> record_read;
  std::array<native::SlotState, 2> record_states{};

  [[nodiscard]] bool in_use() const noexcept { return head.superblock.state == native::LayerState::in_use; }
  // The newest valid record; null without one.
  [[nodiscard]] const native::FlushRecord* newest_record() const noexcept;
};

// An error only where the file is no layer at all: too short, or without magic in either copy. Blocking.
[[nodiscard]] Result<RawHead> read_raw_head(Queue& queue, Store& layer);

// Where superblock copy `copy` lies, bytes.
[[nodiscard]] constexpr std::uint64_t copy_offset(std::uint32_t copy) noexcept {
  return copy * native::k_apart_bytes;
}

}  // namespace oxbow
