// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/connection.h"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <exception>
#include <utility>

#include "os/queue.h"

namespace oxbow::nbd {

Connection::Connection(UniqueFd socket, const Exports& exports, Options options)
    : socket_(std::move(socket)),
      options_(std::move(options)),
      clear_(socket_.get()),
      handshake_(exports, options_.refusal,
                 options_.tls == nullptr ? Handshake::Tls::none : Handshake::Tls::required) {}

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
  if (phase_ == Phase::securing) return secure();
  if (phase_ == Phase::closing) return close();
  if (phase_ == Phase::ended) return {.ended = true};
  if (!send_output()) return {.send = true};  // of the handshake
  if (phase_ == Phase::ended) return {.ended = true};
  const Interest wanted = transmission_->step(readable);
  if (wanted.ended) end(transmission_->why_ended());
  return wanted;
}

Wire& Connection::wire() noexcept {
  if (tls_ != nullptr) return *tls_;
  return clear_;
}

// Sends what there is to answer, receives once and answers that.
Interest Connection::haggle(bool readable) {
  if (!send_output()) return {.send = true};
  if (phase_ == Phase::ended) return {};
  if (!unfed_.empty()) {
    const auto waiting = std::exchange(unfed_, {});
    return feed(waiting);
  }
  if (!readable) return {.receive = true};
  std::array<std::byte, 4096> buffer;
  const std::ptrdiff_t got = wire().receive(buffer);
  if (got == -EAGAIN && !stopping_) return {.receive = true};
  if (got <= 0) {
    end(got == -EAGAIN ? "the server is stopping" : "the client left during the handshake");
    return {};
  }
  return feed(std::span<const std::byte>(buffer).first(static_cast<std::size_t>(got)));
}

Interest Connection::feed(std::span<const std::byte> bytes) {
  const auto rest = bytes.subspan(handshake_.feed(bytes));
  if (handshake_.state() == Handshake::State::haggling) unfed_.assign(rest.begin(), rest.end());
  haggled(rest);
  if (phase_ == Phase::haggling && !send_output()) return {.send = true};
  return {.receive = true, .again = !unfed_.empty() || wire().holds_received() || stopping_};
}

// What the handshake has come to; `early` is what the client sent after it.
void Connection::haggled(std::span<const std::byte> early) {
  if (handshake_.state() == Handshake::State::haggling) return;
  if (handshake_.state() == Handshake::State::starting_tls) {
    phase_ = Phase::securing;
    return drop_clear();
  }
  if (handshake_.state() == Handshake::State::closed) {
    phase_ = Phase::closing;
    why_ended_ = handshake_.why_closed();
    return;
  }
  if (options_.record != nullptr) options_.record->agreed(handshake_.negotiated());
  transmission_.emplace(wire(), *queue_, handshake_.negotiated(), options_.limits, waker_,
                        options_.record.get());
  transmission_->begin(early);
  phase_ = Phase::serving;
}

// Throws away what has come before the client is told to begin with TLS: anybody on the way may have said it.
// What comes later is taken for TLS.
void Connection::drop_clear() noexcept {
  constexpr int k_most_calls = 16;
  std::array<std::byte, 4096> buffer;
  for (int i = 0; i < k_most_calls; ++i) {
    const std::ptrdiff_t got = clear_.receive(buffer);
    if (got == -EAGAIN) return;
    if (got <= 0) return end("the client left during the handshake");
  }
  end("the client went on in the clear instead of beginning with TLS");
}

Interest Connection::secure() {
  if (tls_ == nullptr) {
    if (!send_output()) return {.send = true};
    if (phase_ == Phase::ended) return {.ended = true};
    auto made = TlsWire::make(socket_.get(), options_.tls);
    if (!made) {
      end(made.error().text());
      return {.ended = true};
    }
    tls_ = *std::move(made);
  }
  switch (tls_->handshake()) {
    case TlsWire::Step::receive:
      return {.receive = true};
    case TlsWire::Step::send:
      return {.send = true};
    case TlsWire::Step::failed:
      end("TLS failed: " + tls_->why_failed());
      return {.ended = true};
    case TlsWire::Step::done:
      break;
  }
  handshake_.secured();
  phase_ = Phase::haggling;
  return {.receive = true, .again = true};  // the first option may have come with the end of it
}

// Whether all of it is out.
bool Connection::send_output() {
  std::vector<std::byte>& output = handshake_.output();
  while (!output.empty()) {
    const iovec piece{output.data(), output.size()};
    const std::ptrdiff_t sent = wire().send({&piece, 1});
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
  if (tls_ != nullptr) tls_->bye();
}

void Connection::left() noexcept {
  if (phase_ == Phase::serving) transmission_->left();
}

void Connection::hung_up() noexcept {
  if (phase_ == Phase::serving) {
    transmission_->break_off();
  } else {
    end("the client left during the handshake");
  }
}

void Connection::stop(Stop how) noexcept {
  if (phase_ == Phase::haggling && how == Stop::refuse_requests) {
    // Options that have come are answered with that, then it ends.
    stopping_ = true;
    return handshake_.shut_down();
  }
  if (phase_ != Phase::serving) return end("the server is stopping");
  if (how == Stop::refuse_requests) transmission_->refuse_requests();
  if (how == Stop::receive_nothing) transmission_->end("the server is stopping");
  if (how == Stop::break_off) {
    handshake_.output().clear();  // its last answer may not be out either
    transmission_->break_off();
  }
}

std::optional<Connection::Clock::time_point> Connection::deadline() const noexcept {
  if (phase_ == Phase::serving || phase_ == Phase::ended) return std::nullopt;
  return handshake_until_;
}

void Connection::expire() noexcept { end("the handshake took too long"); }

}  // namespace oxbow::nbd
