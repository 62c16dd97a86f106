// SPDX-License-Identifier: Apache-2.0
#include "stores/ram/ram_store.h"

#include <fcntl.h>

#include <cassert>
#include <cstring>

namespace oxbow {

Progress RamStore::read(Io& /*io*/, std::uint64_t at, std::span<std::byte> out, ReadMode /*mode*/) noexcept {
  assert((Range{at, out.size()}.fits(size())));
  Range left{at, out.size()};
  std::byte* to = out.data();
  while (!left.empty()) {
    const GroupPiece piece = first_piece(left);
    read_piece(piece, to);
    to += piece.range.length;
    left = left.without_prefix(piece.range.length);
  }
  return Progress::done();
}

void RamStore::read_piece(const GroupPiece& piece, std::byte* out) noexcept {
  const std::uint64_t touched = piece.touched();
  const std::uint64_t present = pages_.load(piece.group) & touched;
  if (present == touched) {
    std::memcpy(out, at(piece.range.offset), piece.range.length);
  } else {
    std::memset(out, 0, piece.range.length);
    std::uint64_t rest = present;
    while (rest != 0) {
      const PageRun run = first_run(rest);
      rest &= ~run_mask(run);
      const std::uint64_t run_start = (piece.group * k_ram_group_pages + run.first) * k_ram_page_bytes;
      const std::uint64_t start = std::max(run_start, piece.range.offset);
      const std::uint64_t end = std::min(run_start + run.count * k_ram_page_bytes, piece.range.end());
      std::memcpy(out + (start - piece.range.offset), at(start), end - start);
    }
  }
  recheck(piece, present);
}

void RamStore::recheck(const GroupPiece& piece, std::uint64_t copied) noexcept {
  if ((pages_.load(piece.group) & copied) == copied) return;
  const std::scoped_lock lock(stripe(piece.group));
  std::uint64_t lost = copied & ~pages_.load(piece.group);
  while (lost != 0) {
    const PageRun run = first_run(lost);
    lost &= ~run_mask(run);
    (void)punch(piece.group, run);  // the page stays absent in any case; only its memory would linger
  }
}

Progress RamStore::write(Io& io, std::uint64_t at, WriteMode /*mode*/) noexcept {
  Payload payload(&io.iov);
  return Progress::done(fill({at, iov_bytes(io.iov)}, payload));
}

IoStatus RamStore::fill(Range range, Payload& payload) noexcept {
  assert(range.fits(size()));
  PageReservation reservation(budget_);
  if (!reservation.have(pages_.count_absent(range))) return IoStatus::error(ENOSPC);
  while (!range.empty()) {
    const GroupPiece piece = first_piece(range);
    const std::uint64_t touched = piece.touched();
    if ((pages_.load(piece.group) & touched) == touched) {
      payload.copy_to(at(piece.range.offset), piece.range.length);
      recheck(piece, touched);
    } else if (!fill_absent(piece, payload, reservation)) {
      return IoStatus::error(ENOSPC);
    }
    range = range.without_prefix(piece.range.length);
  }
  return {};
}

bool RamStore::fill_absent(const GroupPiece& piece, Payload& payload, PageReservation& reservation) noexcept {
  const std::scoped_lock lock(stripe(piece.group));
  const std::uint64_t absent = piece.touched() & ~pages_.load(piece.group);
  const auto count = static_cast<unsigned>(std::popcount(absent));
  if (!reservation.have(count)) return false;  // only where a discard made more pages absent meanwhile
  zero_uncovered(piece, absent);
  payload.copy_to(at(piece.range.offset), piece.range.length);
  pages_.set(piece.group, absent);
  reservation.use(count);
  return true;
}

void RamStore::zero_uncovered(const GroupPiece& piece, std::uint64_t absent) noexcept {
  const std::uint64_t group_page = piece.group * k_ram_group_pages;
  const std::uint64_t head = piece.range.offset % k_ram_page_bytes;
  const std::uint64_t first = piece.range.offset / k_ram_page_bytes - group_page;
  if (head != 0 && ((absent >> first) & 1U) != 0) std::memset(at(piece.range.offset - head), 0, head);
  const std::uint64_t tail = piece.range.end() % k_ram_page_bytes;
  const std::uint64_t last = (piece.range.end() - 1) / k_ram_page_bytes - group_page;
  if (tail != 0 && ((absent >> last) & 1U) != 0)
    std::memset(at(piece.range.end()), 0, k_ram_page_bytes - tail);
}

Progress RamStore::zero(Io& io, Range range, ZeroMode mode) noexcept {
  if (mode == ZeroMode::may_punch && !options_.preallocate) return discard(io, range);
  Payload zeros(nullptr);
  return Progress::done(fill(range, zeros));
}

Progress RamStore::discard(Io& io, Range range) noexcept {
  assert(range.fits(size()));
  if (options_.preallocate) return zero(io, range, ZeroMode::allocate);
  // The rest of the last page belongs to nobody.
  if (!range.empty() && range.end() == size()) range.length = whole_ram_pages(range.end()) - range.offset;
  while (!range.empty()) {
    const GroupPiece piece = first_piece(range);
    if ((pages_.load(piece.group) & piece.touched()) != 0) drop(piece);
    range = range.without_prefix(piece.range.length);
  }
  return Progress::done();
}

void RamStore::drop(const GroupPiece& piece) noexcept {
  const std::scoped_lock lock(stripe(piece.group));
  const std::uint64_t present = pages_.load(piece.group);
  const Range range = piece.range;
  const std::uint64_t first_whole =
      (range.offset + k_ram_page_bytes - 1) / k_ram_page_bytes * k_ram_page_bytes;
  const std::uint64_t last_whole = range.end() / k_ram_page_bytes * k_ram_page_bytes;
  if (first_whole > last_whole) {
    zero_edge(range, present, piece.group);
    return;
  }
  zero_edge({range.offset, first_whole - range.offset}, present, piece.group);
  zero_edge({last_whole, range.end() - last_whole}, present, piece.group);
  drop_pages(piece.group, present & piece.covered());
}

void RamStore::zero_edge(Range edge, std::uint64_t present, std::uint64_t group) noexcept {
  if (edge.empty()) return;
  const std::uint64_t index = edge.offset / k_ram_page_bytes - group * k_ram_group_pages;
  if (((present >> index) & 1U) != 0) std::memset(at(edge.offset), 0, edge.length);
}

void RamStore::drop_pages(std::uint64_t group, std::uint64_t mask) noexcept {
  if (mask == 0) return;
  pages_.clear(group, mask);
  std::uint64_t dropped = 0;
  while (mask != 0) {
    const PageRun run = first_run(mask);
    mask &= ~run_mask(run);
    if (punch(group, run)) {
      dropped += run.count;
    } else {
      // The memory can't be had back, so the pages stay present, as zeros.
      std::memset(page(group, run.first), 0, run.count * k_ram_page_bytes);
      pages_.set(group, run_mask(run));
    }
  }
  budget_.give_back(dropped);
}

bool RamStore::punch(std::uint64_t group, PageRun run) noexcept {
  const std::uint64_t offset = (group * k_ram_group_pages + run.first) * k_ram_page_bytes;
  const std::uint64_t length = run.count * k_ram_page_bytes;
  constexpr int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  while (::fallocate(memfd_.get(), mode, static_cast<off_t>(offset), static_cast<off_t>(length)) != 0) {
    if (errno != EINTR) return false;
  }
  return true;
}

Progress RamStore::clear(Io& io) noexcept {
  if (options_.preallocate) return zero(io, {0, size()}, ZeroMode::allocate);
  // At once, pages that came back behind the map's back too.
  constexpr int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  const auto bytes = static_cast<off_t>(memory_.size());
  while (::fallocate(memfd_.get(), mode, 0, bytes) != 0) {
    if (errno != EINTR) return Progress::failed(errno);
  }
  if (const int error = pages_.wipe(); error != 0) return Progress::failed(error);
  budget_.give_back(budget_.used());
  return Progress::done();
}

Progress RamStore::allocate(Io& /*io*/, Range range) noexcept {
  assert(range.fits(size()));
  PageReservation reservation(budget_);
  if (!reservation.have(pages_.count_absent(range))) return Progress::failed(ENOSPC);
  while (!range.empty()) {
    const GroupPiece piece = first_piece(range);
    const std::scoped_lock lock(stripe(piece.group));
    std::uint64_t absent = piece.touched() & ~pages_.load(piece.group);
    const auto count = static_cast<unsigned>(std::popcount(absent));
    if (!reservation.have(count)) return Progress::failed(ENOSPC);
    for (std::uint64_t rest = absent; rest != 0; rest &= ~run_mask(first_run(rest))) {
      const PageRun run = first_run(rest);
      std::memset(page(piece.group, run.first), 0, run.count * k_ram_page_bytes);
    }
    pages_.set(piece.group, absent);
    reservation.use(count);
    range = range.without_prefix(piece.range.length);
  }
  return Progress::done();
}

std::uint64_t RamStore::extents(Range range, Extents& out) noexcept {
  assert(range.fits(size()) && !range.empty() && !out.full());
  std::uint64_t at = range.offset;
  const std::uint64_t first_page = at / k_ram_page_bytes;
  const std::uint64_t end_page =
      std::min((range.end() - 1) / k_ram_page_bytes + 1, first_page + k_scan_pages);
  while (at < range.end() && at / k_ram_page_bytes < end_page && !out.full()) {
    const std::uint64_t page = at / k_ram_page_bytes;
    const bool present = pages_.present(page);
    // The page itself counts as it was seen, also when its bit changes meanwhile.
    const std::uint64_t run_end = pages_.run_end(page + 1, end_page, present);
    const std::uint64_t end = std::min(run_end * k_ram_page_bytes, range.end());
    out.push_back({end - at, present ? Kind::data : Kind::zero, 0, this, at});
    at = end;
  }
  return at - range.offset;
}

std::span<std::byte> RamStore::memory(Range range) noexcept {
  assert(range.fits(size()));
  if (range.empty()) return {};
  const std::uint64_t first = range.offset / k_ram_page_bytes;
  const std::uint64_t end = (range.end() - 1) / k_ram_page_bytes + 1;
  if (pages_.run_end(first, end, true) != end) return {};
  return {at(range.offset), range.length};
}

std::optional<std::uint64_t> RamStore::free_bytes() const noexcept {
  if (budget_.limit() == PageBudget::k_unlimited) return std::nullopt;
  return budget_.left() * k_ram_page_bytes;
}

StoreFacts RamStore::facts() const {
  StoreFacts facts{describe(), size()};
  facts.allocated_bytes = allocated_bytes();
  facts.free_bytes = free_bytes();
  if (budget_.limit() != PageBudget::k_unlimited) facts.total_bytes = budget_.limit() * k_ram_page_bytes;
  return facts;
}

}  // namespace oxbow
