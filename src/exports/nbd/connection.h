// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <string>

#include "exports/nbd/export.h"
#include "exports/nbd/transmission.h"
#include "exports/nbd/wire.h"
#include "os/fd.h"

namespace oxbow::nbd {

// One client from the greeting to its end.
// Thread safety: serve() on a thread of its own; the rest from any thread.
class Connection {
 public:
  struct Options {
    std::chrono::milliseconds handshake_limit{10'000};  // from the greeting to the chosen export
    TransmissionLimits limits;
    std::string refusal;  // when not empty: the client is told this sentence and gets nothing
  };

  // `exports` is borrowed.
  Connection(UniqueFd socket, const Exports& exports, Options options)
      : socket_(std::move(socket)), exports_(exports), options_(std::move(options)) {}

  // Runs until the client is served; then shuts the socket down and nothing is in flight.
  void serve() noexcept;

  // Makes serve() end soon: no more is received, what is in flight is finished and answered.
  void stop() noexcept;
  // Makes it end without waiting for the client: replies that it does not take are lost.
  void break_off() noexcept;
  [[nodiscard]] bool ended() const noexcept { return ended_.load(std::memory_order_acquire); }

  // Once ended(): why, for the log; empty when the client left as the protocol has it.
  [[nodiscard]] const std::string& why_ended() const noexcept { return why_ended_; }

 private:
  void handshake_and_serve();

  UniqueFd socket_;
  const Exports& exports_;
  Options options_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> ended_{false};
  std::string why_ended_;
};

}  // namespace oxbow::nbd
