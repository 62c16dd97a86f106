// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <mutex>

#include "os/canary.h"
#include "oxbow/io_status.h"

namespace oxbow {

// The barriers of one open file. Linux tells of a failed write-back once per open file: whoever asks first, a
// durable write or a sync, takes the error, and the next one hears nothing of it. So syncs run one at a time,
// wait for the durable writes that ran beside them, and once something failed no sync succeeds any more
// (until the file is opened again). Thread safety: any thread; a durable write must end without the help of a
// thread that syncs.
class Barrier {
 public:
  // Runs `write`, which returns an IoStatus, as a durable write.
  template <typename Write>
  [[nodiscard]] IoStatus durable_write(Write&& write) noexcept {
    const unsigned parity = enter();
    const IoStatus status = write();
    if (!status.ok() && !status.is_lack_of_room()) fail(status);
    leave(parity);
    return status;
  }

  // Runs `sync`, which returns an IoStatus, and answers it unless something failed before or beside it.
  template <typename Sync>
  [[nodiscard]] IoStatus sync(Sync&& sync) noexcept {
    const std::lock_guard lock(mutex_);
    const IoStatus status = sync();
    if (!status.ok()) fail(status);
    const unsigned before = parity_.load(std::memory_order_seq_cst);
    parity_.store(1 - before, std::memory_order_seq_cst);
    while (const unsigned running = running_[before].load(std::memory_order_seq_cst)) {
      running_[before].wait(running, std::memory_order_seq_cst);
    }
    const int failed = failed_.load(std::memory_order_seq_cst);
    return failed == 0 ? IoStatus{} : IoStatus::error(failed);
  }

 private:
  // Counted under the parity of now. A sync that ends between the look and the count flips it; whoever stayed with the
  // parity of before would run beside the next sync, which waits for the others.
  [[nodiscard]] unsigned enter() noexcept {
    for (;;) {
      const unsigned parity = parity_.load(std::memory_order_seq_cst);
      canary_moment();
      running_[parity].fetch_add(1, std::memory_order_seq_cst);
      if (parity_.load(std::memory_order_seq_cst) == parity) return parity;
      leave(parity);
    }
  }
  void leave(unsigned parity) noexcept {
    if (running_[parity].fetch_sub(1, std::memory_order_seq_cst) == 1) running_[parity].notify_all();
  }
  void fail(IoStatus status) noexcept {
    int none = 0;
    failed_.compare_exchange_strong(none, status.error_number(), std::memory_order_seq_cst);
  }

  std::mutex mutex_;  // one sync at a time
  std::array<std::atomic<unsigned>, 2> running_{};
  std::atomic<unsigned> parity_{0};
  std::atomic<int> failed_{0};
};

}  // namespace oxbow
