// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "exports/nbd/check_request.h"
#include "exports/nbd/client_record.h"
#include "exports/nbd/negotiated.h"
#include "exports/nbd/payload.h"
#include "exports/nbd/receive_buffer.h"
#include "exports/nbd/replies.h"
#include "exports/nbd/request.h"
#include "exports/nbd/wire.h"
#include "os/queue.h"

namespace oxbow::nbd {

// Bounds of what one connection holds at a time; at the bound it stops receiving.
struct TransmissionLimits {
  std::size_t requests = 128;  // accepted and not yet answered to the last byte; chunks of payload count too
  std::size_t bytes = 64U << 20;  // of payloads and replies; one request may exceed it
  // When the buffers of all connections on the same queue are more, those that hold more than their share stop.
  std::size_t shared_bytes = 128U << 20;
  std::size_t share_bytes = 1U << 20;
};

// What a connection can go on with.
struct Interest {
  bool receive = false;  // when the socket is readable
  bool send = false;     // when it takes more
  bool again = false;    // at once: there is probably more to receive
  bool starved = false;  // when others on the queue have given buffers back
  bool ended = false;    // with nothing: it is over, and nothing of it is in flight
};

// Tells whoever runs a connection that step() has something to do. Thread safety: a value.
struct Waker {
  void (*call)(void* context) noexcept = nullptr;
  void* context = nullptr;
  void operator()() const noexcept {
    if (call != nullptr) call(context);
  }
};

// Whether a client has sent more by the time its last requests are answered: learnt from how often that was
// so, because asking in vain costs a call to the kernel, and not asking costs a wait. Thread safety: none.
class Guess {
 public:
  [[nodiscard]] bool likely() noexcept { return score_ > 0 || ++unlikely_ % k_trial == 0; }
  void learn(bool was_so) noexcept {
    score_ = was_so ? std::min(score_ + 1, k_bound) : std::max(score_ - 2, 0);
  }

 private:
  static constexpr int k_bound = 8;
  static constexpr unsigned k_trial = 64;
  int score_ = 0;
  unsigned unlikely_ = 0;
};

// The transmission phase of one connection: takes what the socket has with one call, carries out every
// complete request in it, and sends the replies together. Never waits: whoever runs it calls step() whenever
// there is something to do.
//
// Requests go to the device in the order of their arrival; those that are pending there are answered when
// they are done, maybe after later ones. Their completions run whatever the client does: claims that a
// request of ours holds must never wait for this client.
// Thread safety: belongs to the thread that owns `queue`.
class Transmission {
 public:
  // Wire, queue, export and `record` (null: nothing is recorded) are borrowed. `waker` is called whenever a request
  // was finished by the device.
  Transmission(Wire& wire, Queue& queue, const Negotiated& negotiated, const TransmissionLimits& limits = {},
               Waker waker = {}, ClientRecord* record = nullptr);
  ~Transmission();
  Transmission(const Transmission&) = delete;
  Transmission& operator=(const Transmission&) = delete;
  Transmission(Transmission&&) = delete;
  Transmission& operator=(Transmission&&) = delete;

  // What the client sent after the handshake and was received with it; before the first step().
  void begin(std::span<const std::byte> early) noexcept;

  // Does what can be done without waiting: carries out what is here, sends what is answered and, when
  // `readable`, receives once.
  Interest step(bool readable) noexcept;

  // From now on requests are refused with ESHUTDOWN. It ends as soon as everything is answered and nothing
  // more comes.
  void refuse_requests() noexcept;
  // Ends it: nothing more is received, what is in the device is finished and answered.
  void end(std::string_view why) noexcept;
  // The client sends nothing more: whatever waits for room, or would, fails.
  void left() noexcept;
  // Ends it without waiting for the client: replies that it has not taken are lost.
  void break_off() noexcept;

  // How it ended, for the log; empty when the client disconnected as the protocol has it.
  [[nodiscard]] std::string_view why_ended() const noexcept { return why_ended_; }

 private:
  static void completed(Io& io) noexcept;

  [[nodiscard]] bool room() const noexcept;
  [[nodiscard]] bool starved() const noexcept;
  void handle_received() noexcept;
  [[nodiscard]] bool handle_one() noexcept;
  void dispatch(const RequestHeader& header, std::span<const std::byte> payload) noexcept;
  void read(Request& request) noexcept;
  [[nodiscard]] bool may_fragment(const Request& request) const noexcept;
  void read_into_buffer(Request& request) noexcept;
  void read_on(Request& request) noexcept;
  void read_again(Request& request) noexcept;
  void write(Request& request, std::span<const std::byte> payload) noexcept;
  void begin_payload(const RequestHeader& header) noexcept;
  [[nodiscard]] bool feed_payload() noexcept;
  void payload_put(std::size_t count) noexcept;
  void write_chunk(Payload::Chunk chunk) noexcept;
  void give_up_payload(IoStatus status) noexcept;

  [[nodiscard]] Request* take(const RequestHeader& header, std::size_t charge) noexcept;
  void release(Request& request) noexcept;
  void count(const Request& request) noexcept;
  void submitted(Request& request, Progress progress) noexcept;
  void finished(Request& request, IoStatus status) noexcept;
  void part_finished(Request& whole, IoStatus status) noexcept;
  void reply(Request& request, IoStatus status) noexcept;
  void put_success(Request& request) noexcept;
  void put_failure(Request& request, IoStatus status, std::string_view why) noexcept;
  void refuse(const RequestHeader& header, const Verdict& verdict) noexcept;
  void is_out(Request& request) noexcept;

  void send() noexcept;
  void work() noexcept;
  [[nodiscard]] bool receives() const noexcept;
  [[nodiscard]] bool receive() noexcept;
  void nothing_received() noexcept;
  [[nodiscard]] Interest interest(bool received) noexcept;

  Wire& wire_;
  Queue& queue_;
  Negotiated negotiated_;
  const Export& export_;
  Device& device_;
  Waker waker_;
  TransmissionLimits limits_;
  RequestPool pool_;
  ReceiveBuffer received_;
  Replies replies_;
  Payload payload_;
  Request* streamed_ = nullptr;  // the write whose payload is being received in chunks
  std::uint64_t to_drop_ = 0;    // bytes of a refused write's payload that are still to come
  std::size_t receive_at_most_ = ReceiveBuffer::k_slab_bytes;
  std::size_t in_device_ = 0;  // requests pending there
  std::size_t charged_ = 0;    // bytes
  std::size_t worked_ = 0;     // requests that the device has carried out since replies were sent
  Guess guess_;
  bool guessed_ = false;  // the next receive() is one
  bool refusing_ = false;
  bool ended_ = false;  // nothing more is received
  bool gone_ = false;   // nothing more can be sent
  bool left_ = false;   // nobody waits for room
  std::string_view why_ended_;
  ClientRecord* record_;
  std::uint64_t received_ns_ = 0;  // when the last bytes came
  std::uint64_t sent_ns_ = 0;  // when the replies left that are being released; 0: the clock wasn't read yet
};

}  // namespace oxbow::nbd
