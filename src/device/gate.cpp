// SPDX-License-Identifier: Apache-2.0
#include "device/gate.h"

#include "os/queue.h"

namespace oxbow {

bool Gate::empty() const noexcept {
  std::int64_t sum = 0;
  for (const Shard& shard : in_) sum += shard.count.load(std::memory_order_seq_cst);
  return sum == 0;
}

void Gate::tell_when_empty() noexcept {
  if (!empty()) return;
  if (Io* const io = closing_.exchange(nullptr, std::memory_order_seq_cst)) io->queue->post(*io, {});
}

Progress Gate::wait(Io& io) noexcept {
  const std::lock_guard lock(mutex_);
  if (!closed()) return Progress::done();
  io.next = waiting_;
  waiting_ = &io;
  return Progress::pending();
}

Progress Gate::close(Io& io) noexcept {
  closed_.store(true, std::memory_order_seq_cst);
  closing_.store(&io, std::memory_order_seq_cst);
  // Whoever takes the Io back tells: here, or the last one on its way out.
  if (empty() && closing_.exchange(nullptr, std::memory_order_seq_cst) != nullptr) return Progress::done();
  return Progress::pending();
}

bool Gate::withdraw() noexcept { return closing_.exchange(nullptr, std::memory_order_seq_cst) != nullptr; }

void Gate::open() noexcept {
  Io* waiting = nullptr;
  {
    const std::lock_guard lock(mutex_);
    closed_.store(false, std::memory_order_seq_cst);
    waiting = std::exchange(waiting_, nullptr);
  }
  while (waiting != nullptr) {
    Io* const each = std::exchange(waiting, waiting->next);
    each->queue->post(*each, {});
  }
}

}  // namespace oxbow
