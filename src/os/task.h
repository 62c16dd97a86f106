// SPDX-License-Identifier: Apache-2.0
#pragma once

// Coroutines for the slow half of a request: where a buffer or a claim has to live while a store is pending.
// A Task starts at once, on the caller's stack, and runs until it first has to wait; whoever awaits a Task
// that is already finished goes on without a suspension. So a hit costs one pooled frame and no hand-off.
// Frames come from the pool of the queue that is the first Queue& or Io& among the coroutine's parameters.

#include <array>
#include <coroutine>
#include <cstdlib>
#include <exception>
#include <utility>

#include "os/queue.h"

namespace oxbow {

// Where a coroutine finds its pool: found by overload among its parameters.
[[nodiscard]] inline FramePool& frame_pool_of(Queue& queue) noexcept { return queue.frames(); }
[[nodiscard]] inline FramePool& frame_pool_of(Io& io) noexcept { return io.queue->frames(); }

template <typename T>
concept HasFramePool = requires(T& where) { frame_pool_of(where); };

// A coroutine that yields an IoStatus. Owns its frame; must not be destroyed while it waits for something.
// Thread safety: runs on the thread of its queue and nowhere else.
class [[nodiscard]] Task {
 public:
  struct promise_type {
    // The coroutine is a member function (its object comes first) or a free one, and has the queue or Io
    // second.
    template <typename Self, typename Where, typename... Rest>
      requires(!HasFramePool<Self>)
    static void* operator new(std::size_t bytes, Self&, Where& where, Rest&&...) noexcept {
      return frame_pool_of(where).allocate(bytes);
    }
    template <HasFramePool Where, typename... Rest>
    static void* operator new(std::size_t bytes, Where& where, Rest&&...) noexcept {
      return frame_pool_of(where).allocate(bytes);
    }
    static void operator delete(void* memory) noexcept { FramePool::release(memory); }

    static Task get_return_object_on_allocation_failure() noexcept { return Task(IoStatus::error(ENOMEM)); }
    Task get_return_object() noexcept {
      return Task(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    std::suspend_never initial_suspend() const noexcept { return {}; }
    struct Final {
      [[nodiscard]] bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<promise_type> self) const noexcept {
        // Both destroy or may destroy this frame; nothing of it is touched afterwards.
        if (self.promise().on_finish != nullptr) self.promise().on_finish(self.promise());
      }
      void await_resume() const noexcept {}
    };
    Final final_suspend() const noexcept { return {}; }
    void return_value(IoStatus value) noexcept { status = value; }
    void unhandled_exception() const noexcept { std::terminate(); }

    IoStatus status;
    void (*on_finish)(promise_type&) noexcept = nullptr;  // set once somebody waits for the end
    std::coroutine_handle<> waiting;
    Io* detached = nullptr;
  };

  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, {})), failed_(other.failed_) {}
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  Task& operator=(Task&&) = delete;
  ~Task() {
    if (handle_) handle_.destroy();
  }

  // Whether it ran to its end already.
  [[nodiscard]] bool finished() const noexcept { return !handle_ || handle_.done(); }
  // Its result, when finished.
  [[nodiscard]] IoStatus status() const noexcept { return handle_ ? handle_.promise().status : failed_; }

  // Answers for a request that this task carries out: its result when finished; else `pending`, and the task
  // lives on by itself and completes `io` at its end.
  [[nodiscard]] Progress detach(Io& io) && noexcept {
    if (finished()) return Progress::done(status());
    promise_type& promise = std::exchange(handle_, {}).promise();
    promise.detached = &io;
    promise.on_finish = [](promise_type& self) noexcept {
      Io& finished_io = *self.detached;
      finished_io.status = self.status;
      std::coroutine_handle<promise_type>::from_promise(self).destroy();
      finished_io.complete(finished_io);
    };
    return Progress::pending();
  }

  // Awaiting a task waits for its end and gives its status.
  [[nodiscard]] bool await_ready() const noexcept { return finished(); }
  void await_suspend(std::coroutine_handle<> waiting) noexcept {
    handle_.promise().waiting = waiting;
    handle_.promise().on_finish = [](promise_type& self) noexcept { self.waiting.resume(); };
  }
  [[nodiscard]] IoStatus await_resume() const noexcept { return status(); }

 private:
  explicit Task(std::coroutine_handle<promise_type> handle) noexcept : handle_(handle) {}
  explicit Task(IoStatus failed) noexcept : failed_(failed) {}

  std::coroutine_handle<promise_type> handle_;
  IoStatus failed_;
};

// An Io that a coroutine waits for: `status = co_await io(store.read(io, …))`. May be used again afterwards.
// Thread safety: like Io.
class WaitIo : public Io {
 public:
  explicit WaitIo(Queue& owner) noexcept
      : Io(owner, [](Io& self) noexcept { static_cast<WaitIo&>(self).waiting_.resume(); }) {}

  struct Awaiter {
    WaitIo& io;
    Progress progress;
    [[nodiscard]] bool await_ready() const noexcept { return !progress.is_pending(); }
    void await_suspend(std::coroutine_handle<> waiting) const noexcept { io.waiting_ = waiting; }
    [[nodiscard]] IoStatus await_resume() const noexcept {
      return progress.is_pending() ? io.status : progress.status();
    }
  };
  // `progress` is what the submission with this Io answered; would_block does not belong here.
  [[nodiscard]] Awaiter operator()(Progress progress) noexcept { return {*this, progress}; }

 private:
  std::coroutine_handle<> waiting_;
};

// Up to N operations in flight at a time for one coroutine: take next() for each submission, tell submitted()
// what it answered, then `status = co_await batch` for the first error, if any. May be used again after that.
// Thread safety: like Io.
template <std::size_t N>
class WaitBatch {
 public:
  explicit WaitBatch(Queue& owner) noexcept : slots_(make(owner, std::make_index_sequence<N>{})) {
    for (Slot& slot : slots_) slot.batch = this;
  }
  WaitBatch(const WaitBatch&) = delete;
  WaitBatch& operator=(const WaitBatch&) = delete;
  WaitBatch(WaitBatch&&) = delete;
  WaitBatch& operator=(WaitBatch&&) = delete;
  ~WaitBatch() = default;

  [[nodiscard]] bool full() const noexcept { return used_ == N; }
  [[nodiscard]] Io& next() noexcept {
    slots_[used_].iov.clear();
    return slots_[used_++];
  }
  void submitted(Progress progress) noexcept {
    if (progress.is_pending()) {
      ++in_flight_;
    } else {
      note(progress.status());
    }
  }

  [[nodiscard]] bool await_ready() const noexcept { return in_flight_ == 0; }
  void await_suspend(std::coroutine_handle<> waiting) noexcept { waiting_ = waiting; }
  [[nodiscard]] IoStatus await_resume() noexcept {
    used_ = 0;
    waiting_ = {};
    return std::exchange(first_error_, IoStatus{});
  }

 private:
  struct Slot : Io {
    explicit Slot(Queue& owner) noexcept
        : Io(owner, [](Io& self) noexcept { static_cast<Slot&>(self).batch->finished(self.status); }) {}
    WaitBatch* batch = nullptr;
  };
  template <std::size_t... I>
  static std::array<Slot, N> make(Queue& owner, std::index_sequence<I...>) noexcept {
    return {((void)I, Slot(owner))...};
  }
  void note(IoStatus status) noexcept {
    if (first_error_.ok()) first_error_ = status;
  }
  void finished(IoStatus status) noexcept {
    note(status);
    if (--in_flight_ == 0 && waiting_) std::exchange(waiting_, {}).resume();
  }

  std::array<Slot, N> slots_;
  std::size_t used_ = 0;
  std::size_t in_flight_ = 0;
  IoStatus first_error_;
  std::coroutine_handle<> waiting_;
};

}  // namespace oxbow
