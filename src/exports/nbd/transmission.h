// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "exports/nbd/export.h"
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
};

// The transmission phase of one connection: takes what the socket has with one call, carries out every
// complete request in it, and sends the replies together.
//
// Requests go to the device in the order of their arrival; those that are pending there are answered when
// they are done, maybe after later ones. The thread blocks in the socket only while nothing of this
// connection is pending in the device: claims that a request of ours holds must never wait for this client.
// Thread safety: run() on one thread, which owns `queue`.
class Transmission {
 public:
  Transmission(Wire& wire, Queue& queue, const Export& served, const TransmissionLimits& limits = {});
  ~Transmission();
  Transmission(const Transmission&) = delete;
  Transmission& operator=(const Transmission&) = delete;
  Transmission(Transmission&&) = delete;
  Transmission& operator=(Transmission&&) = delete;

  // Serves until the client leaves, breaks the protocol, or `stopping` is set (and a wait was ended from
  // outside). Then nothing is in flight any more. `early` is what the client sent after the handshake and was
  // received with it.
  void run(std::span<const std::byte> early, const std::atomic<bool>& stopping) noexcept;

  // How run() ended, for the log; empty when the client disconnected as the protocol has it.
  [[nodiscard]] std::string_view why_ended() const noexcept { return why_ended_; }

 private:
  static void completed(Io& io) noexcept;

  [[nodiscard]] bool room() const noexcept;
  void handle_received() noexcept;
  [[nodiscard]] bool handle_one() noexcept;
  void dispatch(const RequestHeader& header, std::span<const std::byte> payload) noexcept;
  void read(Request& request) noexcept;
  void write(Request& request, std::span<const std::byte> payload) noexcept;
  void begin_payload(const RequestHeader& header) noexcept;
  [[nodiscard]] bool feed_payload() noexcept;
  void payload_put(std::size_t count) noexcept;
  void write_chunk(Payload::Chunk chunk) noexcept;
  void give_up_payload(IoStatus status) noexcept;

  [[nodiscard]] Request* take(const RequestHeader& header, std::size_t charge) noexcept;
  void release(Request& request) noexcept;
  void submitted(Request& request, Progress progress) noexcept;
  void finished(Request& request, IoStatus status) noexcept;
  void part_finished(Request& whole, IoStatus status) noexcept;
  void reply(Request& request, IoStatus status) noexcept;
  void refuse(const RequestHeader& header, IoStatus status) noexcept;

  void send() noexcept;
  void receive_or_wait() noexcept;
  [[nodiscard]] bool receive(Wire::Mode mode) noexcept;
  void end(std::string_view why) noexcept;

  Wire& wire_;
  Queue& queue_;
  const Export& export_;
  Device& device_;
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
  bool ended_ = false;         // nothing more is received
  bool gone_ = false;          // nothing more can be sent
  std::string_view why_ended_;
};

// What makes a request refused before anything is done for it: success, or the error for its reply. For a
// write its payload follows all the same. Disconnect is never refused.
[[nodiscard]] IoStatus check_request(const RequestHeader& header, std::uint64_t size, bool writable) noexcept;

}  // namespace oxbow::nbd
