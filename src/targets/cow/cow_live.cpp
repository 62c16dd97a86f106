// SPDX-License-Identifier: Apache-2.0
// What a layer does with its live file, from which the next process takes the states over when this one is killed:
//
//   next_epoch → superblock {epoch + 1, boot, path}, barrier → epoch: from here on the file counts → changes
//   → a failure: dead, before anybody is told → a clean close: superblock {clean}, barrier → the file is removed
#include <cerrno>

#include "os/canary.h"
#include "os/queue.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/live_file.h"

namespace oxbow {

// The pages that the states belong to are all dirty: nobody knows which of them the last process had written.
Result<void> CowTarget::adopt_live(Queue& queue) {
  if (!options_.adopt) return {};
  if (!states_.adopt()) {
    return std::unexpected(Error("cannot use live state", options_.live->path(),
                                 "it is damaged: its states contradict each other"));
  }
  for (const std::uint64_t page : states_.pages_with_leaves()) {
    if (auto loaded = load_page(queue, page); !loaded) return std::unexpected(loaded.error());
    if (pages_.damaged(page)) continue;
    // One that was only read may lack it, and now it has to be written.
    if (const IoStatus room = allocate_slots(queue, page); !room.ok()) {
      return std::unexpected(Error::from_errno("cannot open layer", layer_->describe(), room.error_number()));
    }
    if (!canary(Canary::live_pages_not_dirty)) pages_.set_dirty(page);
  }
  // Completed writes are waiting to be flushed, so the first flush has to find a session.
  const IoStatus begun = begin_session_now(queue);
  if (!begun.ok()) {
    return std::unexpected(Error::from_errno("cannot open layer", layer_->describe(), begun.error_number()));
  }
  live_counts();
  return {};
}

void CowTarget::session_begins() noexcept {
  if (options_.live == nullptr) return;
  options_.live->begin_session(epoch());
  if (canary(Canary::live_counts_early)) options_.live->session_begun(epoch());
}

// The superblock is durable, and what the disk has besides its pages was brought to its places: no replay has to come
// before what the live file says.
void CowTarget::live_counts() noexcept {
  if (options_.live != nullptr) options_.live->session_begun(epoch());
  if (options_.retired != nullptr) options_.retired->remove();
}

void CowTarget::failed() noexcept {
  if (options_.live != nullptr) options_.live->mark_dead();
}

IoStatus CowTarget::close(Queue& queue) noexcept {
  if (!options_.writable) return {};
  if (options_.live != nullptr && canary(Canary::live_removed_early)) options_.live->remove();
  const IoStatus closed = leave_clean(queue);
  if (!closed.ok()) {
    failed();
    return closed;
  }
  if (options_.live != nullptr) options_.live->remove();
  if (options_.retired != nullptr) options_.retired->remove();
  return closed;
}

}  // namespace oxbow
