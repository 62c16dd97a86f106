// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "exports/nbd/client_record.h"
#include "exports/nbd/export.h"
#include "exports/nbd/handshake.h"
#include "exports/nbd/tls_credentials.h"
#include "exports/nbd/tls_wire.h"
#include "exports/nbd/transmission.h"
#include "exports/nbd/wire.h"
#include "os/fd.h"

namespace oxbow::nbd {

// How far a server that stops goes with those who are still there.
enum class Stop : std::uint8_t {
  no,
  refuse_requests,  // with ESHUTDOWN; a connection ends when its client has all its answers
  receive_nothing,  // what is in flight is finished and answered
  break_off,        // replies that a client doesn't take are lost
};

// One client from the greeting to its end. Never waits: whoever runs it calls step() whenever there is
// something to do.
// Thread safety: belongs to one thread from begin() on.
class Connection {
 public:
  using Clock = std::chrono::steady_clock;

  struct Options {
    std::chrono::milliseconds handshake_limit{10'000};  // from the greeting to the chosen export
    TransmissionLimits limits;
    std::unique_ptr<ClientRecord> record;  // of what it does; may be null
    std::string refusal;  // when not empty: the client is told this sentence and gets nothing
    std::shared_ptr<const TlsCredentials> tls;  // when set: nothing is served without TLS
  };

  // `exports` is borrowed.
  Connection(UniqueFd socket, const Exports& exports, Options options);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;
  Connection(Connection&&) = delete;
  Connection& operator=(Connection&&) = delete;

  // Where it lives from now on. `queue` is the calling thread's and outlives it; `waker` is called when the
  // device has finished something.
  void begin(Queue& queue, Waker waker) noexcept;

  // Does what can be done without waiting; receives when `readable`.
  Interest step(bool readable) noexcept;
  // The client has closed its direction; what it sent before may still be received.
  void left() noexcept;
  // The client has closed the connection in both directions.
  void hung_up() noexcept;
  void stop(Stop how) noexcept;

  // When the handshake has to be over; nothing afterwards.
  [[nodiscard]] std::optional<Clock::time_point> deadline() const noexcept;
  // It was not.
  void expire() noexcept;

  [[nodiscard]] int fd() const noexcept { return socket_.get(); }
  // Once it has ended: why, for the log; empty when the client left as the protocol has it.
  [[nodiscard]] std::string_view why_ended() const noexcept { return why_ended_; }

 private:
  enum class Phase : std::uint8_t {
    haggling,
    securing,  // TLS is being begun; then it haggles on
    serving,
    closing,  // the last words are being sent
    ended,
  };

  [[nodiscard]] Interest guarded_step(bool readable);
  [[nodiscard]] Wire& wire() noexcept;
  [[nodiscard]] Interest haggle(bool readable);
  [[nodiscard]] Interest feed(std::span<const std::byte> bytes);
  [[nodiscard]] Interest secure();
  void drop_clear() noexcept;
  [[nodiscard]] bool send_output();
  void haggled(std::span<const std::byte> early);
  [[nodiscard]] Interest close();
  void end(std::string_view why) noexcept;

  UniqueFd socket_;
  Options options_;
  SocketWire clear_;
  std::unique_ptr<TlsWire> tls_;  // takes its place
  Handshake handshake_;
  Phase phase_ = Phase::haggling;
  Queue* queue_ = nullptr;
  Waker waker_;
  Clock::time_point handshake_until_;
  std::vector<std::byte> unfed_;  // options that wait until answers to earlier ones are out
  bool stopping_ = false;
  std::optional<Transmission> transmission_;
  std::string why_ended_;
};

}  // namespace oxbow::nbd
