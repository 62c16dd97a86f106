// SPDX-License-Identifier: Apache-2.0
#pragma once

// Done or pending, never both.
//
// Whoever can take time answers with a Progress: `done` means the result is there and nobody will be called
// back; `pending` means that the Io's completion runs exactly once, later, on the thread that owns the Io's
// queue, from Queue::poll() and never inside the call that submitted. So a caller looks at the answer in one
// place, holds no lock against its own completion, and needs no recursion guard.

#include <sys/uio.h>

#include <cstdint>

#include "os/fixed.h"
#include "oxbow/io_status.h"

namespace oxbow {

class Queue;

// What a submission answered. Thread safety: a value.
class [[nodiscard]] Progress {
 public:
  [[nodiscard]] static constexpr Progress done(IoStatus status = {}) noexcept {
    return {State::done, status};
  }
  [[nodiscard]] static constexpr Progress failed(int error_number) noexcept {
    return {State::done, IoStatus::error(error_number)};
  }
  [[nodiscard]] static constexpr Progress pending() noexcept { return {State::pending, {}}; }
  // Only as the answer to ReadFlags::no_wait: nothing was started, ask again without the flag.
  [[nodiscard]] static constexpr Progress would_block() noexcept { return {State::would_block, {}}; }

  [[nodiscard]] constexpr bool is_done() const noexcept { return state_ == State::done; }
  [[nodiscard]] constexpr bool is_pending() const noexcept { return state_ == State::pending; }
  [[nodiscard]] constexpr bool is_would_block() const noexcept { return state_ == State::would_block; }
  // The result; meaningful when is_done().
  [[nodiscard]] constexpr IoStatus status() const noexcept { return status_; }

 private:
  enum class State : std::uint8_t { done, pending, would_block };
  constexpr Progress(State state, IoStatus status) noexcept : state_(state), status_(status) {}
  State state_;
  IoStatus status_;
};

// One operation in flight. Owned by the caller, at a fixed address from the submission until it was answered
// `done` or its completion has run; may be used again after that. The gathered buffers of a write are listed
// in `iov`, because the kernel may look at the list until the completion. Thread safety: belongs to the
// thread of its queue; Queue::post may hand it back from any thread.
struct Io {
  using Complete = void (*)(Io&) noexcept;

  Io(Queue& owner, Complete on_complete) noexcept : queue(&owner), complete(on_complete) {}
  Io(const Io&) = delete;
  Io& operator=(const Io&) = delete;
  Io(Io&&) = delete;
  Io& operator=(Io&&) = delete;
  ~Io() = default;

  Queue* queue;
  Complete complete;  // runs on the queue's thread; finds the result in `status`
  IoStatus status;
  // Set by the caller, on its queue's thread, when nobody wants to wait for the outcome any more: it then ends as soon
  // as it can, with an error where it would have to wait for room (Device::hurry).
  bool impatient = false;
  const Io* part_of = nullptr;  // the request, if it isn't this one
  Fixed<iovec, 8> iov;

  [[nodiscard]] const Io& request() const noexcept { return part_of != nullptr ? *part_of : *this; }

  // For whoever has the operation in hand (queue, ring, store); meaningless to the caller.
  Io* next = nullptr;
  std::uint64_t at = 0;
  std::int32_t fd = -1;
  std::uint8_t opcode = 0;
  std::int32_t flags = 0;
};

}  // namespace oxbow
