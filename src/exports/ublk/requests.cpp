// SPDX-License-Identifier: Apache-2.0
#include "exports/ublk/requests.h"

#include <algorithm>
#include <array>

#include "device/device.h"
#include "device/latency.h"
#include "os/queue.h"

namespace oxbow::ublk {
namespace {

// With that much on loan, requests wait until there is less.
constexpr std::size_t k_most_lent_bytes = std::size_t{16} << 20U;
constexpr std::size_t k_small_bytes = 4096;
constexpr std::size_t k_small_kept = 16;

RequestKind kind_of(Operation operation) noexcept {
  switch (operation) {
    case Operation::read:
      return RequestKind::read;
    case Operation::write:
      return RequestKind::write;
    case Operation::flush:
      return RequestKind::flush;
    default:
      return RequestKind::change;
  }
}

bool has_data(Operation operation) noexcept {
  return operation == Operation::read || operation == Operation::write;
}

int bytes_done(const Asked& asked) noexcept {
  return has_data(asked.operation) ? static_cast<int>(asked.range.length) : 0;
}

}  // namespace

Requests::Requests(Device& device, Queue& queue, Channel& channel, const Options& options)
    : device_(device), queue_(queue), channel_(channel), options_(options) {
  requests_.reserve(options.depth);
  waiting_.reserve(options.depth);
  for (unsigned tag = 0; tag < options.depth; ++tag)
    requests_.push_back(std::make_unique<Request>(queue, &Requests::completed, *this, tag));
}

void Requests::keep_buffers() noexcept {
  std::array<Buffer, k_small_kept + 1> kept;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    kept[i] = queue_.buffers().take(i == 0 ? options_.most_bytes : k_small_bytes);
    std::ranges::fill(kept[i].bytes(), std::byte{0});
  }
}

void Requests::begin(unsigned tag) noexcept {
  Request& request = *requests_[tag];
  request.arrived_ns = steady_ns();
  ++open_;
  const auto asked = understand(channel_.descriptor(tag));
  request.asked = asked.value_or(Asked{});
  if (!asked) return answer(request, -EOPNOTSUPP);
  if (has_data(asked->operation) && asked->range.length > options_.most_bytes) return answer(request, -EIO);
  // Others that wait were first.
  if (!waiting_.empty()) return waiting_.push_back(tag);
  carry_out(request);
}

void Requests::carry_out(Request& request) noexcept {
  const Asked& asked = request.asked;
  const bool changes = asked.operation != Operation::read && asked.operation != Operation::flush;
  if (changes && options_.read_only) return answer(request, -EIO);
  switch (asked.operation) {
    case Operation::read:
      return read(request);
    case Operation::write:
      return write(request);
    case Operation::zero:
      return submitted(request, device_.zero(request, asked.range, asked.allocate, asked.durability));
    case Operation::discard:
      return submitted(request, device_.discard(request, asked.range, asked.durability));
    case Operation::flush:
      return submitted(request, device_.flush(request));
  }
}

void Requests::read(Request& request) noexcept {
  const Range range = request.asked.range;
  if (const auto memory = channel_.memory(request.tag); !memory.empty())
    return submitted(request, device_.read(request, range.offset, memory.first(range.length)));
  if (read_from_view(request)) return;
  if (!take_buffer(request)) return;
  submitted(request, device_.read(request, range.offset, request.buffer.bytes()));
}

// Only from memory that stays: of a file that is cut short meanwhile, zeros could be sent that nobody can take back.
bool Requests::read_from_view(Request& request) noexcept {
  const Range range = request.asked.range;
  if (!range.fits(device_.size())) return false;
  ReadView view;
  if (!device_.view(queue_, range, view) || view.may_fault) return false;
  if (!channel_.send(request.tag, {view.pieces.begin(), view.pieces.size()})) return false;
  device_.viewed(queue_, range, view);
  answer(request, bytes_done(request.asked));
  return true;
}

void Requests::write(Request& request) noexcept {
  const Range range = request.asked.range;
  std::span<const std::byte> data = channel_.memory(request.tag);
  if (data.empty()) {
    if (write_into_memory(request) || !take_buffer(request)) return;
    if (!channel_.receive(request.tag, request.buffer.bytes())) {
      request.buffer = {};
      return answer(request, -EIO);
    }
    data = request.buffer.bytes();
  }
  submitted(request,
            device_.write(request, range.offset, data.first(range.length), request.asked.durability));
}

bool Requests::write_into_memory(Request& request) noexcept {
  const Asked& asked = request.asked;
  if (asked.durability != Durability::with_flush || !asked.range.fits(device_.size())) return false;
  DirectWrite direct = device_.direct(queue_, asked.range);
  if (direct.memory.empty()) return false;
  const bool all = channel_.receive(request.tag, direct.memory);
  device_.received(queue_, asked.range);
  direct.pass.leave();
  answer(request, all ? bytes_done(asked) : -EIO);
  return true;
}

// Lets the request wait where there is none now.
bool Requests::take_buffer(Request& request) noexcept {
  const bool too_much = in_flight_ > 0 && queue_.buffers().lent_bytes() > k_most_lent_bytes;
  if (!too_much) request.buffer = queue_.buffers().take(request.asked.range.length);
  if (request.buffer.valid()) return true;
  if (in_flight_ > 0) {
    // One that waits already is tried again before all others.
    waiting_.insert(going_on_ ? waiting_.begin() : waiting_.end(), request.tag);
  } else {
    answer(request, -EIO);
  }
  return false;
}

void Requests::submitted(Request& request, Progress progress) noexcept {
  if (!progress.is_pending()) return finished(request, progress.status());
  ++in_flight_;
}

void Requests::completed(Io& io) noexcept {
  auto& request = static_cast<Request&>(io);
  --request.owner->in_flight_;
  request.owner->finished(request, request.status);
  request.owner->go_on();
}

void Requests::finished(Request& request, IoStatus status) noexcept {
  const Asked& asked = request.asked;
  bool sent = true;
  if (status.ok() && asked.operation == Operation::read && request.buffer.valid()) {
    const iovec piece{request.buffer.bytes().data(), request.buffer.bytes().size()};
    sent = channel_.send(request.tag, {&piece, 1});
  }
  request.buffer = {};
  if (!status.ok()) return answer(request, error_for_kernel(asked.operation, status));
  answer(request, sent ? bytes_done(asked) : -EIO);
}

void Requests::answer(Request& request, int result) noexcept {
  request.iov.clear();
  --open_;
  device_.took(queue_, kind_of(request.asked.operation), steady_ns() - request.arrived_ns);
  channel_.answer(request.tag, result);
}

void Requests::go_on() noexcept {
  going_on_ = true;
  while (!waiting_.empty()) {
    const std::size_t left = waiting_.size();
    const unsigned tag = waiting_.front();
    waiting_.erase(waiting_.begin());
    carry_out(*requests_[tag]);
    if (waiting_.size() >= left) break;  // it waits again
  }
  going_on_ = false;
}

}  // namespace oxbow::ublk
