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
constexpr std::size_t k_early_replies = 16;
constexpr std::size_t k_early_bytes = 256U << 10;

}  // namespace

Transmission::Transmission(Wire& wire, Queue& queue, const Export& served, const TransmissionLimits& limits)
    : wire_(wire),
      queue_(queue),
      export_(served),
      device_(*served.device),
      limits_(limits),
      pool_(limits.requests),
      received_(queue.buffers(), limits.requests),
      replies_([](Request& request) noexcept { request.owner->release(request); }),
      payload_(device_, queue) {
  assert(limits.requests >= 2);  // a write in chunks is one, and each of its chunks
}

Transmission::~Transmission() = default;

void Transmission::run(std::span<const std::byte> early, const std::atomic<bool>& stopping) noexcept {
  if (!early.empty()) {
    const auto room = received_.room();
    if (room.size() < early.size()) return end("no memory to receive into");
    std::memcpy(room.data(), early.data(), early.size());
    received_.received(early.size());
  }
  while (true) {
    if (in_device_ > 0) (void)queue_.poll();
    if (stopping.load(std::memory_order_relaxed)) end("the server is stopping");
    handle_received();
    const bool was_full = !room();
    send();
    if (ended_ && in_device_ == 0 && replies_.empty()) return;
    // What was left unhandled for want of room comes before anything new.
    if (!was_full || !room()) receive_or_wait();
  }
}

void Transmission::end(std::string_view why) noexcept {
  if (ended_) return;
  ended_ = true;
  why_ended_ = why;
  if (streamed_ == nullptr) return;
  payload_.abandon();
  // Without the rest of its payload it is no request: nobody waits for an answer.
  Request& whole = *std::exchange(streamed_, nullptr);
  whole.abandoned = true;
  part_finished(whole, {});
}

bool Transmission::room() const noexcept {
  return pool_.used() < limits_.requests && charged_ < limits_.bytes;
}

void Transmission::handle_received() noexcept {
  while (!ended_ && handle_one()) {
    if (replies_.count() >= k_early_replies || replies_.bytes() >= k_early_bytes) send();
  }
}

// --- the socket ---

void Transmission::send() noexcept {
  if (replies_.send(wire_) != Replies::Sent::failed) return;
  gone_ = true;
  end("the client stopped receiving");
}

void Transmission::receive_or_wait() noexcept {
  const bool to_receive = !ended_ && (room() || to_drop_ > 0);
  const bool to_send = !replies_.empty();
  if (to_receive && !to_send && in_device_ == 0) {
    (void)receive(Wire::Mode::wait);
    return;
  }
  if (to_receive && receive(Wire::Mode::do_not_wait)) return;
  if (in_device_ > 0 && queue_.poll()) return;
  if (to_receive || to_send || in_device_ > 0) {
    (void)wire_.wait(to_receive && !ended_, to_send, in_device_ > 0 ? queue_.event_fd() : -1);
  }
}

// One call to the socket. Whether anything happened.
bool Transmission::receive(Wire::Mode mode) noexcept {
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
  const std::ptrdiff_t got = wire_.receive(into, mode);
  if (got == -EAGAIN) return false;
  if (got <= 0) {
    end(got == 0 ? "the client closed the connection" : "the connection broke");
    return true;
  }
  if (to_payload) {
    payload_put(static_cast<std::size_t>(got));
  } else {
    receive_at_most_ = ReceiveBuffer::k_slab_bytes;
    received_.received(static_cast<std::size_t>(got));
  }
  return true;
}

}  // namespace oxbow::nbd
