// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "exports/nbd/request.h"
#include "exports/nbd/wire.h"

namespace oxbow::nbd {

// Replies on their way to the client, in order. Many leave with one call: heads from the requests, data from
// buffers or from the device's own memory. Never waits; what the client does not take stays, and who fills
// the queue looks at its size.
//
// Memory that may fault (ReadView::may_fault) does when its file was cut short. A reply of which nothing is out is
// then given back, to be read another way. One that is out in part is completed if it is structured: the chunk
// with zeros, then a chunk that says where they begin; a simple one can only end the connection.
// Thread safety: belongs to the connection's thread.
class Replies {
 public:
  enum class Sent : std::uint8_t {
    all,
    some,    // the client takes no more for now, or the turn is over
    failed,  // the client is gone, or must be left: drop()
  };

  // Each gets a request that is not queued any more, and may add() it again: `out` when all of the reply is
  // out or was dropped, `faulted` when nothing is.
  struct Hooks {
    void (*out)(Request&) noexcept;
    void (*faulted)(Request&) noexcept;
  };
  explicit Replies(Hooks hooks) noexcept : hooks_(hooks) {}

  // The request's reply is set and not empty.
  void add(Request& request) noexcept;
  [[nodiscard]] Sent send(Wire& wire) noexcept;
  void drop() noexcept;

  // Begins a turn. In one turn no more is sent than some MiB: a client that takes its replies as fast as they
  // come must not keep others waiting.
  void begin_turn() noexcept { turn_bytes_ = 0; }
  [[nodiscard]] bool turn_is_over() const noexcept { return turn_bytes_ >= k_turn_bytes; }
  static constexpr std::size_t k_turn_bytes = 8U << 20;

  [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }  // still to be sent

 private:
  void sent(std::size_t bytes) noexcept;
  [[nodiscard]] bool cut_short(const Request* last) const noexcept;
  [[nodiscard]] bool cope_with_fault() noexcept;
  [[nodiscard]] bool give_back_faulted() noexcept;
  [[nodiscard]] bool fill_up(Request& request) noexcept;

  Hooks hooks_;
  Request* first_ = nullptr;
  Request* last_ = nullptr;
  std::size_t count_ = 0;
  std::size_t bytes_ = 0;
  std::size_t turn_bytes_ = 0;  // sent in this turn
  std::size_t first_sent_ = 0;  // bytes of the first reply that are out
};

}  // namespace oxbow::nbd
