// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/claims.h"

#include <algorithm>
#include <bit>

#include "os/queue.h"

namespace oxbow {
namespace {

// The bits of slots [slot, slot + count) that lie in slot's word.
struct Piece {
  std::uint64_t word;
  std::uint64_t mask;
  std::uint64_t count;
};
Piece piece_at(std::uint64_t slot, std::uint64_t count) noexcept {
  const std::uint64_t shift = slot % 64;
  const std::uint64_t n = std::min<std::uint64_t>(count, 64 - shift);
  const std::uint64_t ones = n == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1;
  return {slot / 64, ones << shift, n};
}

}  // namespace

std::uint64_t Claims::take(std::uint64_t first, std::uint64_t count) noexcept {
  std::uint64_t done = 0;
  while (done < count) {
    const Piece piece = piece_at((first + done) % k_slots, count - done);
    const std::uint64_t before = taken_[piece.word].fetch_or(piece.mask, std::memory_order_seq_cst);
    const std::uint64_t conflicts = before & piece.mask;
    if (conflicts != 0) {
      // Keep what lies before the first conflict; give the rest of what was just set back.
      const std::uint64_t below = (conflicts & (~conflicts + 1)) - 1;
      const std::uint64_t mine = piece.mask & ~before;
      const std::uint64_t surplus = mine & ~below;
      const auto kept = static_cast<std::uint64_t>(std::popcount(mine & below));
      if (surplus != 0) release_bits(piece.word, surplus);
      return done + kept;
    }
    done += piece.count;
  }
  return done;
}

void Claims::release_bits(std::uint64_t word, std::uint64_t mask) noexcept {
  taken_[word].fetch_and(~mask, std::memory_order_seq_cst);
  if (waiters_.load(std::memory_order_seq_cst) == 0) return;
  const std::lock_guard lock(mutex_);
  for (Io** link = &waiting_; *link != nullptr;) {
    Io& io = **link;
    if (is_taken(io.at)) {
      link = &io.next;
      continue;
    }
    *link = io.next;
    waiters_.fetch_sub(1, std::memory_order_seq_cst);
    io.queue->post(io, {});
  }
}

void Claims::drop(std::uint64_t first, std::uint64_t count) noexcept {
  for (std::uint64_t done = 0; done < count;) {
    const Piece piece = piece_at((first + done) % k_slots, count - done);
    release_bits(piece.word, piece.mask);
    done += piece.count;
  }
}

std::uint64_t Claims::unclaimed(std::uint64_t first, std::uint64_t count) const noexcept {
  std::uint64_t done = 0;
  while (done < count) {
    const std::uint64_t slot = (first + done) % k_slots;
    const Piece piece = piece_at(slot, count - done);
    const std::uint64_t taken = taken_[piece.word].load(std::memory_order_seq_cst) & piece.mask;
    if (taken != 0) return done + static_cast<std::uint64_t>(std::countr_zero(taken)) - (slot % 64);
    done += piece.count;
  }
  return done;
}

Progress Claims::wait(Io& io, std::uint64_t cluster) noexcept {
  io.at = cluster % k_slots;
  const std::lock_guard lock(mutex_);
  // Counted before looking: a drop that comes after the look sees the count, and then this list.
  waiters_.fetch_add(1, std::memory_order_seq_cst);
  if (!is_taken(io.at)) {
    waiters_.fetch_sub(1, std::memory_order_seq_cst);
    return Progress::done();
  }
  io.next = waiting_;
  waiting_ = &io;
  return Progress::pending();
}

bool Claims::is_taken(std::uint64_t slot) const noexcept {
  return (taken_[slot / 64].load(std::memory_order_seq_cst) >> (slot % 64) & 1) != 0;
}

}  // namespace oxbow
