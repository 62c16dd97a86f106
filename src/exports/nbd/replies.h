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
// Thread safety: belongs to the connection's thread.
class Replies {
 public:
  enum class Sent : std::uint8_t {
    all,
    some,    // the client takes no more for now
    failed,  // the client is gone; nothing is left to be sent
  };

  // `release` gets each request back whose reply is out, or that was dropped.
  using Release = void (*)(Request&) noexcept;
  explicit Replies(Release release) noexcept : release_(release) {}

  // Head and data of the request are set.
  void add(Request& request) noexcept;
  [[nodiscard]] Sent send(Wire& wire) noexcept;
  void drop() noexcept;

  [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }
  [[nodiscard]] std::size_t count() const noexcept { return count_; }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }  // still to be sent

 private:
  void sent(std::size_t bytes) noexcept;
  void pop() noexcept;

  Release release_;
  Request* first_ = nullptr;
  Request* last_ = nullptr;
  std::size_t count_ = 0;
  std::size_t bytes_ = 0;
  std::size_t first_sent_ = 0;  // bytes of the first reply that are out
};

}  // namespace oxbow::nbd
