// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "os/buffer_pool.h"
#include "os/fd.h"
#include "os/frame_pool.h"
#include "os/io.h"

namespace oxbow {

class Ring;

// One thread's place for I/O: the completions that wait for it, its io_uring (opened when first needed), and
// its pools of frames and buffers. One queue per thread; a connection, and each of its requests, lives on
// one. Thread safety: post() may be called from any thread; everything else belongs to the owning thread.
// Before a queue is destroyed nothing may be in flight on it.
class Queue {
 public:
  Queue();
  virtual ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  Queue(Queue&&) = delete;
  Queue& operator=(Queue&&) = delete;

  // Hands `io` back to the owning thread: its completion runs with `status` from a later poll(). From any
  // thread.
  void post(Io& io, IoStatus status) noexcept;

  // Submits what the ring holds back and runs the completions that are there, and those that these cause, up
  // to a bound. Never blocks. Returns whether any ran.
  bool poll() noexcept;

  // Tells the kernel of what the ring holds back, without looking for completions: they show in event_fd().
  void submit() noexcept;

  // Blocks until poll() has something to run (or a signal arrived). A simulation overrides it to make the
  // next thing happen.
  virtual void wait() noexcept;

  // Becomes readable when poll() has something to run: for a loop that also waits for sockets. Call
  // submit() or poll() once before waiting on it, so that nothing is held back.
  [[nodiscard]] int event_fd() const noexcept { return event_.get(); }

  // The ring, or null where the kernel has none to give; then the caller does its I/O synchronously.
  [[nodiscard]] Ring* ring() noexcept;

  [[nodiscard]] FramePool& frames() noexcept { return frames_; }
  [[nodiscard]] BufferPool& buffers() noexcept { return buffers_; }
  // A small number for picking a shard of counters; not unique.
  [[nodiscard]] unsigned shard() const noexcept { return shard_; }

 private:
  bool run_posted() noexcept;

  std::atomic<Io*> posted_{nullptr};  // newest first
  std::atomic<unsigned> posting_{0};  // calls of post() under way
  UniqueFd event_;
  FramePool frames_;
  BufferPool buffers_;
  std::unique_ptr<Ring> ring_;
  bool ring_failed_ = false;
  unsigned shard_;
};

// Runs `submit(io)` and waits for its outcome: for the control path (opening, closing, checking), where
// blocking is meant. Other completions of the queue run meanwhile.
template <typename Submit>
[[nodiscard]] IoStatus run_blocking(Queue& queue, Submit&& submit) {
  struct Waiter : Io {
    explicit Waiter(Queue& owner) noexcept
        : Io(owner, [](Io& self) noexcept { static_cast<Waiter&>(self).finished = true; }) {}
    bool finished = false;
  };
  Waiter waiter(queue);
  const Progress progress = submit(static_cast<Io&>(waiter));
  if (progress.is_done()) return progress.status();
  while (!waiter.finished) {
    if (!queue.poll()) queue.wait();
  }
  return waiter.status;
}

}  // namespace oxbow
