// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/replies.h"

#include <cerrno>

#include "os/fixed.h"

namespace oxbow::nbd {
namespace {

using Gathered = Fixed<iovec, 256>;  // pieces in one call; the kernel takes up to 1024

// Appends `piece` without its first `skip` bytes, which are taken off `skip`.
void gather(Gathered& gathered, iovec piece, std::size_t& skip) noexcept {
  const std::size_t skipped = std::min(skip, piece.iov_len);
  skip -= skipped;
  if (skipped == piece.iov_len) return;
  gathered.push_back({static_cast<std::byte*>(piece.iov_base) + skipped, piece.iov_len - skipped});
}

}  // namespace

void Replies::add(Request& request) noexcept {
  request.next_reply = nullptr;
  (last_ == nullptr ? first_ : last_->next_reply) = &request;
  last_ = &request;
  request.reply_bytes = request.reply.size();
  for (const iovec& piece : request.data.pieces) request.reply_bytes += piece.iov_len;
  bytes_ += request.reply_bytes;
  ++count_;
}

void Replies::pop() noexcept {
  Request& done = *first_;
  first_ = done.next_reply;
  if (first_ == nullptr) last_ = nullptr;
  --count_;
  release_(done);
}

void Replies::sent(std::size_t bytes) noexcept {
  bytes_ -= bytes;
  first_sent_ += bytes;
  while (first_ != nullptr && first_sent_ >= first_->reply_bytes) {
    first_sent_ -= first_->reply_bytes;
    pop();
  }
}

void Replies::drop() noexcept {
  while (first_ != nullptr) pop();
  bytes_ = 0;
  first_sent_ = 0;
}

Replies::Sent Replies::send(Wire& wire) noexcept {
  while (first_ != nullptr) {
    Gathered gathered;
    std::size_t skip = first_sent_;
    std::size_t wanted = 0;
    for (Request* each = first_; each != nullptr; each = each->next_reply) {
      if (gathered.room() < 1 + each->data.pieces.size()) break;
      gather(gathered, {each->reply.data(), each->reply.size()}, skip);
      for (const iovec& piece : each->data.pieces) gather(gathered, piece, skip);
      wanted += each->reply_bytes;
    }
    wanted -= first_sent_;
    const std::ptrdiff_t result = wire.send(gathered.span());
    if (result == -EAGAIN) return Sent::some;
    if (result < 0) {
      drop();
      return Sent::failed;
    }
    sent(static_cast<std::size_t>(result));
    if (static_cast<std::size_t>(result) < wanted) return Sent::some;
  }
  return Sent::all;
}

}  // namespace oxbow::nbd
