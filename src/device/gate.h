// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a structure change needs: new requests held, those in flight drained.
//
// A request counts itself in BEFORE it looks whether the gate is closed, and close() closes BEFORE it counts: so either
// the request sees the closed gate, or close() sees the request. Counters are spread over shards, one cache line each;
// a request is counted in and out of the same one, so a sum over all misses nobody who is in all the time.

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <utility>

#include "os/io.h"

namespace oxbow {

// Lets requests in, and holds them back while it is closed. Thread safety: from any thread; close() and open() by one
// thread at a time.
class Gate {
 public:
  // A request that is in; leaves when it is destroyed. Thread safety: one thread at a time.
  class Pass {
   public:
    Pass() noexcept = default;
    Pass(Pass&& other) noexcept : gate_(std::exchange(other.gate_, nullptr)), shard_(other.shard_) {}
    Pass& operator=(Pass&& other) noexcept {
      if (this != &other) {
        leave();
        gate_ = std::exchange(other.gate_, nullptr);
        shard_ = other.shard_;
      }
      return *this;
    }
    Pass(const Pass&) = delete;
    Pass& operator=(const Pass&) = delete;
    ~Pass() { leave(); }

    // Whether it is in.
    [[nodiscard]] explicit operator bool() const noexcept { return gate_ != nullptr; }
    void leave() noexcept {
      if (gate_ != nullptr) std::exchange(gate_, nullptr)->leave(shard_);
    }

   private:
    friend class Gate;
    Pass(Gate& gate, unsigned shard) noexcept : gate_(&gate), shard_(shard) {}
    Gate* gate_ = nullptr;
    unsigned shard_ = 0;
  };

  // In, unless the gate is closed; then wait() and try again.
  [[nodiscard]] Pass enter(unsigned shard) noexcept {
    in_[shard % k_shards].count.fetch_add(1, std::memory_order_seq_cst);
    if (!closed_.load(std::memory_order_seq_cst)) return {*this, shard};
    leave(shard);
    return {};
  }
  // Posts `io` once the gate is open. Answers done when it is.
  [[nodiscard]] Progress wait(Io& io) noexcept;

  // Lets nobody in any more. Posts `io` when the last one is out, or answers done.
  [[nodiscard]] Progress close(Io& io) noexcept;
  // Whoever closed it waits no longer: false where its Io has been posted already, or is about to be.
  [[nodiscard]] bool withdraw() noexcept;
  void open() noexcept;

  [[nodiscard]] bool closed() const noexcept { return closed_.load(std::memory_order_seq_cst); }

 private:
  static constexpr unsigned k_shards = 16;
  struct alignas(64) Shard {
    std::atomic<std::int64_t> count{0};
  };

  void leave(unsigned shard) noexcept {
    in_[shard % k_shards].count.fetch_sub(1, std::memory_order_seq_cst);
    if (closed_.load(std::memory_order_seq_cst)) tell_when_empty();
  }
  [[nodiscard]] bool empty() const noexcept;
  void tell_when_empty() noexcept;

  std::array<Shard, k_shards> in_{};
  std::atomic<bool> closed_{false};
  std::atomic<Io*> closing_{nullptr};  // told when the last one is out
  std::mutex mutex_;
  Io* waiting_ = nullptr;  // guarded by mutex_
};

}  // namespace oxbow
