// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/replies.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "device/zeros.h"
#include "os/fixed.h"
#include "stores/store.h"

namespace oxbow::nbd {
namespace {

// What goes out with one call; the kernel takes up to 1024 pieces. Thread safety: none.
class Gathered {
 public:
  // Without the first `skip` bytes of what is added.
  explicit Gathered(std::size_t skip) noexcept : skip_(skip) {}

  // False when not all of it found room.
  [[nodiscard]] bool add(const Reply& reply) noexcept {
    std::size_t piece = 0;
    for (const Chunk& chunk : reply.chunks) {
      if (!add(chunk.head.data(), chunk.head_bytes)) return false;
      for (const std::size_t end = piece + chunk.pieces; piece < end; ++piece) {
        if (!add(reply.data.pieces[piece])) return false;
      }
    }
    return true;
  }

  [[nodiscard]] std::span<const iovec> pieces() const noexcept { return pieces_.span(); }
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

 private:
  [[nodiscard]] bool add(const iovec& piece) noexcept {
    if (!is_hole(piece)) return add(static_cast<const std::byte*>(piece.iov_base), piece.iov_len);
    // Zeros may be longer than the memory for them.
    for (std::size_t left = piece.iov_len; left > 0;) {
      const std::size_t length = std::min(left, k_zeros_bytes);
      if (!add(zeros().data(), length)) return false;
      left -= length;
    }
    return true;
  }
  [[nodiscard]] bool add(const std::byte* data, std::size_t length) noexcept {
    const std::size_t skipped = std::min(skip_, length);
    skip_ -= skipped;
    if (skipped == length) return true;
    if (pieces_.full()) return false;
    // iovec has no const form; it is sent from.
    pieces_.push_back({const_cast<std::byte*>(data) + skipped, length - skipped});
    bytes_ += length - skipped;
    return true;
  }

  Fixed<iovec, 256> pieces_;
  std::size_t skip_;
  std::size_t bytes_ = 0;
};

}  // namespace

void Replies::add(Request& request) noexcept {
  request.next_reply = nullptr;
  (last_ == nullptr ? first_ : last_->next_reply) = &request;
  last_ = &request;
  bytes_ += request.reply.bytes;
  ++count_;
}

void Replies::sent(std::size_t bytes) noexcept {
  bytes_ -= bytes;
  first_sent_ += bytes;
  while (first_ != nullptr && first_sent_ >= first_->reply.bytes) {
    Request& done = *first_;
    first_sent_ -= done.reply.bytes;
    first_ = done.next_reply;
    if (first_ == nullptr) last_ = nullptr;
    --count_;
    hooks_.out(done);
  }
}

void Replies::drop() noexcept {
  Request* next = std::exchange(first_, nullptr);
  last_ = nullptr;
  count_ = 0;
  bytes_ = 0;
  first_sent_ = 0;
  while (next != nullptr) {
    Request& dropped = *std::exchange(next, next->next_reply);
    hooks_.out(dropped);
  }
}

Replies::Sent Replies::send(Wire& wire) noexcept {
  while (first_ != nullptr) {
    if (turn_is_over()) return Sent::some;
    Gathered gathered(first_sent_);
    const Request* each = first_;
    while (each != nullptr && gathered.add(each->reply)) each = each->next_reply;
    if (cut_short(each)) {
      if (!cope_with_fault()) return Sent::failed;
      continue;
    }
    const std::ptrdiff_t result = wire.send(gathered.pieces());
    if (result == -EAGAIN) return Sent::some;
    if (result == -EFAULT && cope_with_fault()) continue;
    if (result < 0) return Sent::failed;
    turn_bytes_ += static_cast<std::size_t>(result);
    sent(static_cast<std::size_t>(result));
    if (static_cast<std::size_t>(result) < gathered.bytes()) return Sent::some;
  }
  return Sent::all;
}

// --- memory that faulted ---

// Whether a file was cut short from which something up to and with `last` (null: the last of all) is to be sent.
bool Replies::cut_short(const Request* last) const noexcept {
  decltype(ReadView::files) asked;
  for (const Request* each = first_; each != nullptr; each = each == last ? nullptr : each->next_reply) {
    for (Store* file : each->reply.data.files) {
      if (std::ranges::find(asked, file) != asked.end()) continue;
      if (file->cut_short()) return true;
      if (!asked.full()) asked.push_back(file);
    }
  }
  return false;
}

// Whether to go on. The kernel doesn't say where it was.
bool Replies::cope_with_fault() noexcept {
  if (give_back_faulted()) return true;
  return first_ != nullptr && first_->reply.data.may_fault && fill_up(*first_);
}

// All of which nothing is out yet. Whether there were any.
bool Replies::give_back_faulted() noexcept {
  Request* faulted = nullptr;
  Request* next = std::exchange(first_, nullptr);
  const bool first_is_out = first_sent_ > 0;
  last_ = nullptr;
  count_ = 0;
  bytes_ = 0;
  bool begun = first_is_out;
  while (next != nullptr) {
    Request& each = *std::exchange(next, next->next_reply);
    if (!std::exchange(begun, false) && each.reply.data.may_fault) {
      each.next_reply = std::exchange(faulted, &each);
    } else {
      add(each);
    }
  }
  bytes_ -= first_sent_;
  const bool any = faulted != nullptr;
  while (faulted != nullptr) {
    Request& each = *std::exchange(faulted, faulted->next_reply);
    hooks_.faulted(each);
  }
  return any;
}

// Makes the rest of the first reply such that it needs no memory that may fault. False when it is a simple one.
bool Replies::fill_up(Request& request) noexcept {
  Reply& reply = request.reply;
  std::size_t sent = first_sent_;
  std::size_t index = 0;
  std::size_t piece = 0;
  while (sent >= reply.chunks[index].head_bytes + std::size_t{reply.chunks[index].data_bytes}) {
    sent -= reply.chunks[index].head_bytes + std::size_t{reply.chunks[index].data_bytes};
    piece += reply.chunks[index++].pieces;
  }
  const Chunk current = reply.chunks[index];
  if (type_of(current) != ChunkType::offset_data) return false;
  const std::size_t data_sent = sent > current.head_bytes ? sent - current.head_bytes : 0;

  Reply rest;
  for (std::size_t i = 0; i < index; ++i) rest.chunks.push_back(reply.chunks[i]);
  for (std::size_t i = 0; i < piece; ++i) rest.data.pieces.push_back(reply.data.pieces[i]);
  rest.bytes = first_sent_ - sent;
  if (sent > 0) {
    // Zeros also for what is out, which is skipped.
    rest.data.pieces.push_back({const_cast<std::byte*>(zeros().data()), current.data_bytes});
    rest.chunks.push_back(current);
    rest.chunks.back().pieces = 1;
    rest.bytes += current.head_bytes + std::size_t{current.data_bytes};
  }
  put_error_at(rest, request.header.cookie, wire_error(IoStatus::error(EIO)), offset_of(current) + data_sent);
  bytes_ = bytes_ - reply.bytes + rest.bytes;
  reply = std::move(rest);
  request.left = {};
  return true;
}

}  // namespace oxbow::nbd
