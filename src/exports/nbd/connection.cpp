// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/connection.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <exception>
#include <optional>
#include <span>
#include <vector>

#include "exports/nbd/handshake.h"
#include "os/queue.h"

namespace oxbow::nbd {
namespace {

enum class Outcome : std::uint8_t { done, gone, late };

Outcome send_all(Wire& wire, std::vector<std::byte>& bytes, Wire::Clock::time_point until) {
  std::span<std::byte> rest(bytes);
  while (!rest.empty()) {
    const iovec piece{rest.data(), rest.size()};
    const std::ptrdiff_t sent = wire.send({&piece, 1});
    if (sent == -EAGAIN) {
      if (!wire.wait(false, true, -1, until)) return Outcome::late;
    } else if (sent < 0) {
      return Outcome::gone;
    } else {
      rest = rest.subspan(static_cast<std::size_t>(sent));
    }
  }
  bytes.clear();
  return Outcome::done;
}

Outcome receive(Wire& wire, std::span<std::byte> into, std::size_t& got, Wire::Clock::time_point until) {
  while (true) {
    const std::ptrdiff_t result = wire.receive(into, Wire::Mode::do_not_wait);
    if (result > 0) {
      got = static_cast<std::size_t>(result);
      return Outcome::done;
    }
    if (result != -EAGAIN) return Outcome::gone;
    if (!wire.wait(true, false, -1, until)) return Outcome::late;
  }
}

}  // namespace

void Connection::serve() noexcept {
  try {
    handshake_and_serve();
  } catch (const std::exception& failure) {
    // Memory or descriptors are short: this client is not served, the others are.
    why_ended_ = failure.what();
  }
  (void)::shutdown(socket_.get(), SHUT_RDWR);  // fails only when the client has done the same
  ended_.store(true, std::memory_order_release);
}

void Connection::handshake_and_serve() {
  SocketWire wire(socket_.get());
  Handshake handshake(exports_, options_.refusal);
  const auto until = Wire::Clock::now() + options_.handshake_limit;
  std::array<std::byte, 4096> buffer;
  std::span<const std::byte> early;
  while (true) {
    Outcome outcome = send_all(wire, handshake.output(), until);
    if (outcome == Outcome::done && handshake.state() != Handshake::State::haggling) break;
    std::size_t got = 0;
    if (outcome == Outcome::done) outcome = receive(wire, buffer, got, until);
    if (outcome != Outcome::done || stopping_.load(std::memory_order_relaxed)) {
      why_ended_ =
          outcome == Outcome::late ? "the handshake took too long" : "the client left during the handshake";
      return;
    }
    const auto bytes = std::span<const std::byte>(buffer).first(got);
    early = bytes.subspan(handshake.feed(bytes));
  }
  if (handshake.state() == Handshake::State::closed) {
    why_ended_ = handshake.why_closed();
    return;
  }
  Queue queue;
  Transmission transmission(wire, queue, *handshake.negotiated().served, options_.limits);
  transmission.run(early, stopping_);
  why_ended_ = transmission.why_ended();
}

void Connection::stop() noexcept {
  stopping_.store(true, std::memory_order_relaxed);
  (void)::shutdown(socket_.get(), SHUT_RD);  // fails only when the client has gone already
}

void Connection::break_off() noexcept {
  stopping_.store(true, std::memory_order_relaxed);
  (void)::shutdown(socket_.get(), SHUT_RDWR);
}

}  // namespace oxbow::nbd
