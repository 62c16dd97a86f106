// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/connection.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <exception>
#include <span>
#include <utility>

#include "os/queue.h"

namespace oxbow::nbd {

Connection::Connection(UniqueFd socket, const Exports& exports, Options options)
    : socket_(std::move(socket)),
      options_(std::move(options)),
      wire_(socket_.get()),
      handshake_(exports, options_.refusal) {}

Connection::~Connection() {
  (void)::shutdown(socket_.get(), SHUT_RDWR);  // fails only when the client has done the same
}

void Connection::begin(Queue& queue, Waker waker) noexcept {
  queue_ = &queue;
  waker_ = waker;
  handshake_until_ = Clock::now() + options_.handshake_limit;
}

Interest Connection::step(bool readable) noexcept {
  try {
    return guarded_step(readable);
  } catch (const std::exception& failure) {
    // Memory is short during the handshake: this client is not served, the others are.
    end(failure.what());
    return {.ended = true};
  }
}

Interest Connection::guarded_step(bool readable) {
  if (phase_ == Phase::haggling) {
    const Interest wanted = haggle(readable);
    if (phase_ == Phase::haggling) return wanted;
    readable = false;  // what was received is being handled
  }
  if (phase_ == Phase::closing) return close();
  if (phase_ == Phase::ended) return {.ended = true};
  if (!send_output()) return {.send = true};  // of the handshake
  if (phase_ == Phase::ended) return {.ended = true};
  const Interest wanted = transmission_->step(readable);
  if (wanted.ended) end(transmission_->why_ended());
  return wanted;
}

// Sends and receives until there is nothing more to be had, or the phase changes.
Interest Connection::haggle(bool readable) {
  while (phase_ == Phase::haggling) {
    if (!send_output()) return {.send = true};
    if (phase_ == Phase::ended) break;
    if (!readable) return {.receive = true};
    std::array<std::byte, 4096> buffer;
    const std::ptrdiff_t got = wire_.receive(buffer);
    if (got == -EAGAIN) return {.receive = true};
    if (got <= 0) {
      end("the client left during the handshake");
      break;
    }
    const auto bytes = std::span<const std::byte>(buffer).first(static_cast<std::size_t>(got));
    haggled(bytes.subspan(handshake_.feed(bytes)));
  }
  return {};
}

// What the handshake has come to; `early` is what the client sent after it.
void Connection::haggled(std::span<const std::byte> early) {
  if (handshake_.state() == Handshake::State::haggling) return;
  if (handshake_.state() == Handshake::State::closed) {
    phase_ = Phase::closing;
    why_ended_ = handshake_.why_closed();
    return;
  }
  transmission_.emplace(wire_, *queue_, handshake_.negotiated(), options_.limits, waker_);
  transmission_->begin(early);
  phase_ = Phase::serving;
}

// Whether all of it is out.
bool Connection::send_output() {
  std::vector<std::byte>& output = handshake_.output();
  while (!output.empty()) {
    const iovec piece{output.data(), output.size()};
    const std::ptrdiff_t sent = wire_.send({&piece, 1});
    if (sent == -EAGAIN) return false;
    if (sent < 0) {
      end("the client left during the handshake");
      return true;
    }
    output.erase(output.begin(), output.begin() + sent);
  }
  return true;
}

// The last words, then the end.
Interest Connection::close() {
  if (!send_output()) return {.send = true};
  end(std::exchange(why_ended_, {}));
  return {.ended = true};
}

void Connection::end(std::string_view why) noexcept {
  if (phase_ == Phase::ended) return;
  phase_ = Phase::ended;
  why_ended_ = why;
}

void Connection::hung_up() noexcept {
  if (phase_ == Phase::serving) {
    transmission_->break_off();
  } else {
    end("the client left during the handshake");
  }
}

void Connection::stop(Stop how) noexcept {
  if (phase_ != Phase::serving) return end("the server is stopping");
  if (how == Stop::refuse_requests) transmission_->refuse_requests();
  if (how == Stop::receive_nothing) transmission_->end("the server is stopping");
  if (how == Stop::break_off) transmission_->break_off();
}

std::optional<Connection::Clock::time_point> Connection::deadline() const noexcept {
  if (phase_ == Phase::haggling || phase_ == Phase::closing) return handshake_until_;
  return std::nullopt;
}

void Connection::expire() noexcept { end("the handshake took too long"); }

}  // namespace oxbow::nbd
