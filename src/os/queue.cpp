// SPDX-License-Identifier: Apache-2.0
#include "os/queue.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <system_error>
#include <thread>

#include "os/ring.h"

namespace oxbow {
namespace {

// How many rounds of completions one poll() runs before the loop gets to look at its sockets again.
constexpr int k_poll_rounds = 16;

// How long to wait for completions while the kernel lacks the resources for what is held back.
constexpr int k_retry_ms = 1;

}  // namespace

Queue::Queue() : event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!event_.valid()) throw std::system_error(errno, std::generic_category(), "eventfd");
  shard_ = static_cast<unsigned>(event_.get());
}

Queue::~Queue() {
  // A post() whose entry has been taken may still be on its way to wake this queue.
  while (posting_.load(std::memory_order_acquire) != 0) std::this_thread::yield();
}

void Queue::post(Io& io, IoStatus status) noexcept {
  io.status = status;
  posting_.fetch_add(1, std::memory_order_relaxed);
  Io* head = posted_.load(std::memory_order_relaxed);
  do {
    io.next = head;
  } while (!posted_.compare_exchange_weak(head, &io, std::memory_order_release, std::memory_order_relaxed));
  // Only the first entry of a list needs to wake the owner: it takes the whole list at once.
  if (head == nullptr) (void)::eventfd_write(event_.get(), 1);
  posting_.fetch_sub(1, std::memory_order_release);
}

bool Queue::run_posted() noexcept {
  Io* newest_first = posted_.exchange(nullptr, std::memory_order_acquire);
  Io* oldest_first = nullptr;
  while (newest_first != nullptr) {
    Io* io = newest_first;
    newest_first = io->next;
    io->next = oldest_first;
    oldest_first = io;
  }
  if (oldest_first == nullptr) return false;
  while (oldest_first != nullptr) {
    Io* io = oldest_first;
    oldest_first = io->next;
    io->complete(*io);
  }
  return true;
}

bool Queue::poll() noexcept {
  eventfd_t ignored = 0;
  (void)::eventfd_read(event_.get(), &ignored);  // before looking, so that what arrives later wakes again
  bool any = false;
  for (int round = 0; round < k_poll_rounds; ++round) {
    bool ran = run_posted();
    if (ring_ != nullptr) {
      (void)ring_->submit();
      ran = ring_->reap() || ran;
    }
    if (!ran) return any;
    any = true;
  }
  (void)::eventfd_write(event_.get(), 1);  // the bound was reached: there may be more
  return any;
}

void Queue::submit() noexcept {
  // What the kernel lacks the resources for now is tried again from poll().
  if (ring_ != nullptr && !ring_->submit()) (void)::eventfd_write(event_.get(), 1);
}

void Queue::wait() noexcept {
  const bool submitted = ring_ == nullptr || ring_->submit();
  pollfd waited{event_.get(), POLLIN, 0};
  (void)::poll(&waited, 1, submitted ? -1 : k_retry_ms);
}

Ring* Queue::ring() noexcept {
  if (ring_ == nullptr && !ring_failed_) {
    ring_ = Ring::open(event_.get());
    ring_failed_ = ring_ == nullptr;
  }
  return ring_.get();
}

}  // namespace oxbow
