// SPDX-License-Identifier: Apache-2.0
// What a transmission does with its requests, from the header to the queued reply.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "exports/nbd/block_status.h"
#include "exports/nbd/read_part.h"
#include "exports/nbd/transmission.h"

namespace oxbow::nbd {
namespace {

// A write whose payload is at most this is carried out in one piece, once it is all there.
constexpr std::size_t k_waited_for_bytes = ReceiveBuffer::k_max_message_bytes - 4096;
static_assert(k_waited_for_bytes + k_request_bytes <= ReceiveBuffer::k_max_message_bytes);

// Large writes come in rows. Behind one, no more is received at once than heads, so that the next payload can
// go where it belongs without a copy.
constexpr std::size_t k_after_payload_bytes = 4096;

constexpr std::size_t k_min_charge = 512;
constexpr std::size_t k_status_charge = 2 * 8 * k_max_descriptors;

Durability durability(const RequestHeader& header) noexcept {
  return (header.flags & command_flag::k_fua) != 0 ? Durability::when_completed : Durability::with_flush;
}

Range range_of(const RequestHeader& header) noexcept { return {header.offset, header.length}; }

}  // namespace

// Whether there may be more to handle.
bool Transmission::handle_one() noexcept {
  if (to_drop_ > 0) {
    const std::size_t dropped = std::min<std::uint64_t>(to_drop_, received_.bytes().size());
    received_.consume(dropped);
    to_drop_ -= dropped;
    return to_drop_ == 0;
  }
  if (!room()) return false;
  if (streamed_ != nullptr) return feed_payload();

  const auto bytes = received_.bytes();
  if (bytes.size() < k_request_bytes) return false;
  const auto header = decode_request(bytes);
  if (!header) {
    end("a request without the protocol's magic number");
    return false;
  }
  const auto behind = bytes.subspan(k_request_bytes);
  const bool write = header->command == Command::write;
  Verdict verdict = check_request(*header, negotiated_);
  if (refusing_ && header->command != Command::disconnect) verdict = {IoStatus::error(ESHUTDOWN)};
  if (!verdict.status.ok()) {
    received_.consume(k_request_bytes);
    if (write) to_drop_ = header->length;
    refuse(*header, verdict);
    return true;
  }
  if (write && behind.size() < header->length) {
    if (header->length <= k_waited_for_bytes) return false;
    received_.consume(k_request_bytes);
    begin_payload(*header);
    return true;
  }
  const auto payload = write ? behind.first(header->length) : behind.first(0);
  dispatch(*header, payload);
  received_.consume(k_request_bytes + payload.size());
  return true;
}

void Transmission::dispatch(const RequestHeader& header, std::span<const std::byte> payload) noexcept {
  if (header.command == Command::disconnect) return end({});
  Request* request = take(header, std::max<std::size_t>(payload.size(), k_min_charge));
  if (request == nullptr) return end("no memory for a request");
  switch (header.command) {
    case Command::read:
      return read(*request);
    case Command::write:
      return write(*request, payload);
    case Command::flush:
      return submitted(*request, device_.flush(*request));
    case Command::trim:
      return submitted(*request, device_.discard(*request, range_of(header), durability(header)));
    case Command::cache:
      return submitted(*request, device_.cache(*request, range_of(header)));
    case Command::block_status:
      request->charged += k_status_charge;
      charged_ += k_status_charge;
      return submitted(*request,
                       answer_block_status(queue_, device_, negotiated_, *request).detach(*request));
    default: {
      const bool allocate = (header.flags & command_flag::k_no_hole) != 0;
      const bool fast = (header.flags & command_flag::k_fast_zero) != 0;
      return submitted(*request, device_.zero(*request, range_of(header), allocate, durability(header),
                                              fast ? ZeroSpeed::fast : ZeroSpeed::any));
    }
  }
}

void Transmission::read(Request& request) noexcept {
  const Range range = range_of(request.header);
  if (range.empty()) return finished(request, {});
  ReadView& view = request.reply.data;
  const bool at_hand = device_.view(queue_, range, view) && (!view.may_fault || wire_.survives_faults());
  const bool in_parts = !at_hand && may_fragment(request) && range.length > k_whole_read_bytes;
  const std::size_t charge = in_parts ? std::min(range.length, k_part_bytes) : range.length;
  request.charged += charge;
  charged_ += charge;
  if (at_hand) {
    device_.viewed(queue_, range, view);
    return finished(request, {});
  }
  if (!in_parts) return read_into_buffer(request);
  request.left = range;
  read_on(request);
}

bool Transmission::may_fragment(const Request& request) const noexcept {
  return negotiated_.structured_replies && (request.header.flags & command_flag::k_df) == 0;
}

// The whole of it.
void Transmission::read_into_buffer(Request& request) noexcept {
  const Range range = range_of(request.header);
  request.reply.clear();
  request.buffer = queue_.buffers().take(range.length);
  if (!request.buffer.valid()) return finished(request, IoStatus::error(ENOMEM));
  const auto bytes = request.buffer.bytes();
  request.reply.data.pieces.push_back({bytes.data(), bytes.size()});
  submitted(request, device_.read(request, range.offset, bytes));
}

// The next part.
void Transmission::read_on(Request& request) noexcept {
  submitted(request, read_part(queue_, device_, request).detach(request));
}

// Its memory faulted before anything of the reply was out.
void Transmission::read_again(Request& request) noexcept {
  request.begun = false;
  read_into_buffer(request);
}

void Transmission::write(Request& request, std::span<const std::byte> payload) noexcept {
  const Progress progress =
      device_.write(request, request.header.offset, payload, durability(request.header));
  if (progress.is_pending()) request.slab = received_.pin();
  submitted(request, progress);
}

// --- payloads in chunks ---

void Transmission::begin_payload(const RequestHeader& header) noexcept {
  streamed_ = take(header, k_min_charge);
  if (streamed_ == nullptr) return end("no memory for a request");
  streamed_->parts = 1;
  payload_.begin(range_of(header), durability(header));
}

// Moves what is there of the payload from the receive buffer. Whether there may be more to handle.
bool Transmission::feed_payload() noexcept {
  const auto bytes = received_.bytes();
  if (bytes.empty()) return false;
  const auto into = payload_.destination(bytes.size());
  if (into.empty()) {
    give_up_payload(IoStatus::error(ENOMEM));
    return true;
  }
  const std::size_t count = std::min(bytes.size(), into.size());
  std::memcpy(into.data(), bytes.data(), count);
  received_.consume(count);
  payload_put(count);
  return true;
}

void Transmission::payload_put(std::size_t count) noexcept {
  auto chunk = payload_.put(count);
  if (!chunk) return;
  if (chunk->data.valid()) write_chunk(std::move(*chunk));
  if (!streamed_->outcome.ok()) return give_up_payload(streamed_->outcome);
  if (!payload_.active()) {
    receive_at_most_ = k_after_payload_bytes;
    part_finished(*std::exchange(streamed_, nullptr), {});
  }
}

void Transmission::write_chunk(Payload::Chunk chunk) noexcept {
  Request* part = take(streamed_->header, chunk.range.length);
  if (part == nullptr) {
    streamed_->outcome = IoStatus::error(ENOMEM);
    return;
  }
  part->parent = streamed_;
  ++streamed_->parts;
  part->buffer = std::move(chunk.data);
  submitted(*part,
            device_.write(*part, chunk.range.offset, part->buffer.bytes(), durability(streamed_->header)));
}

// The rest of the payload is received for nothing.
void Transmission::give_up_payload(IoStatus status) noexcept {
  to_drop_ = payload_.missing();
  payload_.abandon();
  part_finished(*std::exchange(streamed_, nullptr), status);
}

// --- the ways of a request ---

Request* Transmission::take(const RequestHeader& header, std::size_t charge) noexcept {
  Request* request = pool_.take(queue_, &Transmission::completed, *this);
  if (request == nullptr) return nullptr;
  request->header = header;
  request->impatient = left_;
  request->charged = charge;
  request->arrived_ns = received_ns_;
  charged_ += charge;
  return request;
}

namespace {

std::optional<RequestKind> kind_of(Command command) noexcept {
  switch (command) {
    case Command::read:
      return RequestKind::read;
    case Command::write:
      return RequestKind::write;
    case Command::trim:
    case Command::write_zeroes:
      return RequestKind::change;
    case Command::flush:
      return RequestKind::flush;
    default:
      return std::nullopt;
  }
}

}  // namespace

// The clock is read once for all that are released by one send().
void Transmission::count(const Request& request) noexcept {
  if (request.parent != nullptr || request.abandoned || gone_) return;
  if (request.failed && record_ != nullptr) record_->failed();
  const auto kind = kind_of(request.header.command);
  if (!kind) {
    if (record_ != nullptr) record_->answered_other();
    return;
  }
  if (sent_ns_ == 0) sent_ns_ = steady_ns();
  const std::uint64_t took_ns = sent_ns_ - request.arrived_ns;
  device_.took(queue_, *kind, took_ns);
  if (record_ != nullptr) record_->answered(*kind, request.failed ? 0 : request.header.length, took_ns);
}

void Transmission::release(Request& request) noexcept {
  count(request);
  charged_ -= request.charged;
  pool_.give_back(request);
}

void Transmission::completed(Io& io) noexcept {
  auto& request = static_cast<Request&>(io);
  Transmission& owner = *request.owner;
  --owner.in_device_;
  owner.finished(request, request.status);
  owner.waker_();
}

void Transmission::submitted(Request& request, Progress progress) noexcept {
  if (progress.is_pending()) {
    ++in_device_;
  } else {
    ++worked_;
    finished(request, progress.status());
  }
}

void Transmission::finished(Request& request, IoStatus status) noexcept {
  if (request.slab != nullptr) ReceiveBuffer::unpin(std::exchange(request.slab, nullptr));
  if (request.parent == nullptr) return reply(request, status);
  Request& whole = *request.parent;
  release(request);
  part_finished(whole, status);
}

void Transmission::part_finished(Request& whole, IoStatus status) noexcept {
  if (whole.outcome.ok()) whole.outcome = status;
  if (--whole.parts > 0) return;
  if (whole.abandoned) {
    release(whole);
  } else {
    reply(whole, whole.outcome);
  }
}

void Transmission::reply(Request& request, IoStatus status) noexcept {
  if (gone_) return release(request);
  if (status.ok()) {
    put_success(request);
  } else {
    put_failure(request, status, error_text(status));
  }
  request.begun = true;
  replies_.add(request);
}

// Without data or an error a simple reply is never wrong, and the shortest, but for READ.
void Transmission::put_success(Request& request) noexcept {
  const RequestHeader& header = request.header;
  Reply& reply = request.reply;
  if (!reply.chunks.empty()) return;  // made already
  const bool data = !reply.data.pieces.empty();
  if (!negotiated_.structured_replies || header.command != Command::read) {
    put_simple(reply, header.cookie, 0);
  } else if (data) {
    put_content(reply, header.cookie, header.offset, may_fragment(request), Last::yes);
  } else {
    put_none(reply, header.cookie);
  }
}

void Transmission::put_failure(Request& request, IoStatus status, std::string_view why) noexcept {
  const RequestHeader& header = request.header;
  Reply& reply = request.reply;
  reply.clear();
  const std::uint32_t error = wire_error(header, status);
  const std::uint64_t failed_at = request.left.offset;
  request.failed = true;
  request.left = {};
  if (!negotiated_.structured_replies) {
    put_simple(reply, header.cookie, error);
  } else if (request.begun) {
    put_error_at(reply, header.cookie, error, failed_at);
  } else {
    put_error(reply, header.cookie, error, why);
  }
}

void Transmission::refuse(const RequestHeader& header, const Verdict& verdict) noexcept {
  Request* request = take(header, k_min_charge);
  if (request == nullptr) return end("no memory for a request");
  if (gone_) return release(*request);
  const bool says_why = !verdict.why.empty();
  put_failure(*request, verdict.status, says_why ? verdict.why : error_text(verdict.status));
  replies_.add(*request);
}

// What was queued has left, or never will.
void Transmission::is_out(Request& request) noexcept {
  if (request.left.empty() || gone_) return release(request);
  read_on(request);
}

}  // namespace oxbow::nbd
