// SPDX-License-Identifier: Apache-2.0
// The loop and the socket; commands.cpp has the requests.
#include "exports/nbd/transmission.h"

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>
#include <utility>

namespace oxbow::nbd {
namespace {

// The client gets its first answers of a long batch while the rest is being worked on.
// What needs no work, since its data are at hand, leaves together: each sending wakes the client.
constexpr std::size_t k_early_worked = 16;
constexpr std::size_t k_early_bytes = 256U << 10;

}  // namespace

Transmission::Transmission(Wire& wire, Queue& queue, const Negotiated& negotiated,
                           const TransmissionLimits& limits, Waker waker, ClientRecord* record)
    : wire_(wire),
      queue_(queue),
      negotiated_(negotiated),
      export_(*negotiated.served),
      device_(*export_.device),
      waker_(waker),
      limits_(limits),
      pool_(limits.requests),
      received_(queue.buffers(), limits.requests),
      replies_({.out = [](Request& request) noexcept { request.owner->is_out(request); },
                .faulted = [](Request& request) noexcept { request.owner->read_again(request); }}),
      payload_(device_, queue),
      record_(record) {
  assert(limits.requests >= 2);  // a write in chunks is one, and each of its chunks
}

Transmission::~Transmission() = default;

void Transmission::begin(std::span<const std::byte> early) noexcept {
  if (early.empty()) return;
  received_ns_ = steady_ns();
  const auto room = received_.room();
  if (room.size() < early.size()) return end("no memory to receive into");
  std::memcpy(room.data(), early.data(), early.size());
  received_.received(early.size());
}

Interest Transmission::step(bool readable) noexcept {
  replies_.begin_turn();
  work();
  bool received = false;
  // What is left of a turn that is over comes before anything new.
  const bool handled = !replies_.turn_is_over();
  if (handled && receives() && (readable || refusing_ || wire_.holds_received())) {
    received = receive();
    if (received) {
      work();
    } else {
      nothing_received();
    }
  }
  return interest(received);
}

// Carries out what is here, and what there is room for once replies have left.
void Transmission::work() noexcept {
  bool was_full = false;
  do {
    handle_received();
    was_full = !room();
    send();
  } while (was_full && room() && !replies_.turn_is_over());
}

bool Transmission::receives() const noexcept { return !ended_ && (room() || to_drop_ > 0); }

Interest Transmission::interest(bool received) noexcept {
  Interest wanted{.receive = receives(), .send = !replies_.empty()};
  wanted.starved = !ended_ && starved();
  wanted.ended = ended_ && in_device_ == 0 && !wanted.send;
  guessed_ = received && wanted.receive && guess_.likely();
  // At the stop, that nothing more comes has to be found out.
  const bool must_ask = (refusing_ && received) || wire_.holds_received();
  wanted.again = guessed_ || (wanted.receive && must_ask);
  wanted.again = wanted.again || (replies_.turn_is_over() && !wanted.ended);
  if (!wanted.again && received_.bytes().empty()) received_.release();
  return wanted;
}

void Transmission::nothing_received() noexcept {
  const bool between_requests = received_.bytes().empty() && to_drop_ == 0 && streamed_ == nullptr;
  if (refusing_ && between_requests && in_device_ == 0 && replies_.empty()) end("the server is stopping");
}

void Transmission::refuse_requests() noexcept {
  if (std::exchange(refusing_, true) || ended_) return;
  if (streamed_ != nullptr) give_up_payload(IoStatus::error(ESHUTDOWN));
}

void Transmission::break_off() noexcept {
  gone_ = true;
  replies_.drop();
  end("the server is stopping");
}

// Without a client a request could wait for ever, and keep the connection's place.
void Transmission::left() noexcept {
  if (std::exchange(left_, true)) return;
  for (const auto& request : pool_.all()) device_.hurry(*request);
}

void Transmission::end(std::string_view why) noexcept {
  if (ended_) return;
  ended_ = true;
  why_ended_ = why;
  left();
  if (streamed_ == nullptr) return;
  payload_.abandon();
  // Without the rest of its payload it is no request: nobody waits for an answer.
  Request& whole = *std::exchange(streamed_, nullptr);
  whole.abandoned = true;
  part_finished(whole, {});
}

bool Transmission::room() const noexcept {
  return pool_.used() < limits_.requests && charged_ < limits_.bytes && !starved();
}

bool Transmission::starved() const noexcept {
  return charged_ > limits_.share_bytes && queue_.buffers().lent_bytes() > limits_.shared_bytes;
}

void Transmission::handle_received() noexcept {
  while (!ended_ && !replies_.turn_is_over() && handle_one()) {
    if (worked_ >= k_early_worked || replies_.bytes() >= k_early_bytes) send();
  }
}

// --- the socket ---

void Transmission::send() noexcept {
  sent_ns_ = 0;
  worked_ = 0;
  if (replies_.send(wire_) != Replies::Sent::failed) return;
  gone_ = true;
  replies_.drop();
  end("the client stopped receiving");
}

// One call to the socket. Whether anything happened.
bool Transmission::receive() noexcept {
  const bool to_payload = streamed_ != nullptr && received_.bytes().empty();
  auto into = to_payload ? payload_.destination(wire_.available()) : received_.room();
  if (into.empty()) {
    if (to_payload) {
      give_up_payload(IoStatus::error(ENOMEM));
    } else {
      end("no memory to receive into");
    }
    return true;
  }
  if (!to_payload) into = into.first(std::min(into.size(), receive_at_most_));
  const std::ptrdiff_t got = wire_.receive(into);
  if (guessed_) guess_.learn(got != -EAGAIN);
  guessed_ = false;
  if (got == -EAGAIN) return false;
  if (got <= 0) {
    end(got == 0 ? "the client closed the connection" : "the connection broke");
    return true;
  }
  received_ns_ = steady_ns();
  if (to_payload) {
    payload_put(static_cast<std::size_t>(got));
  } else {
    receive_at_most_ = ReceiveBuffer::k_slab_bytes;
    received_.received(static_cast<std::size_t>(got));
  }
  return true;
}

}  // namespace oxbow::nbd
