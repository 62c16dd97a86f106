// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>

#include "oxbow/io_status.h"

namespace oxbow {

// The barriers of one open file description. Linux tells of a failed write-back once per description, to whoever asks
// first: so they run one at a time, and once one failed none succeeds any more (until the file is opened again).
// Thread safety: any thread.
class Barrier {
 public:
  // Runs `sync`, which returns an IoStatus, unless something failed before.
  template <typename Sync>
  [[nodiscard]] IoStatus sync(Sync&& sync) noexcept {
    const std::lock_guard lock(mutex_);
    if (failed_.ok()) failed_ = sync();
    return failed_;
  }
  // Runs `write`, which returns an IoStatus, as a durable write. Lack of room for its bytes is no failure.
  template <typename Write>
  [[nodiscard]] IoStatus durable_write(Write&& write) noexcept {
    const std::lock_guard lock(mutex_);
    const IoStatus status = write();
    if (!status.ok() && !status.is_lack_of_room() && failed_.ok()) failed_ = status;
    return status;
  }

 private:
  std::mutex mutex_;
  IoStatus failed_;  // guarded by mutex_
};

}  // namespace oxbow
