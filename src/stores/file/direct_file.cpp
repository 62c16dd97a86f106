// SPDX-License-Identifier: Apache-2.0
#include "stores/file/direct_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <utility>

#include "os/ring.h"
#include "os/transfer.h"

namespace oxbow {
namespace {

constexpr std::uint64_t k_page_bytes = 4096;
constexpr std::uint64_t k_bounce_bytes = 256U << 10;

constexpr std::uint64_t round_down(std::uint64_t value, std::uint64_t unit) noexcept {
  return value / unit * unit;
}
constexpr std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) noexcept {
  return round_down(value + unit - 1, unit);
}
constexpr Range between(std::uint64_t start, std::uint64_t end) noexcept {
  return {start, end > start ? end - start : 0};
}
constexpr Range rounded_out(Range range, std::uint64_t unit) noexcept {
  return between(round_down(range.offset, unit), round_up(range.end(), unit));
}

}  // namespace

std::expected<DirectLimits, int> direct_limits(int fd, bool block_device) noexcept {
  DirectLimits limits;
#ifdef STATX_DIOALIGN
  struct statx info{};
  if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &info) == 0 && (info.stx_mask & STATX_DIOALIGN) != 0) {
    limits = {info.stx_dio_offset_align, info.stx_dio_mem_align};
    const bool usable = std::has_single_bit(limits.block) && std::has_single_bit(limits.memory) &&
                        limits.memory <= k_page_bytes;
    if (!usable) return std::unexpected(EINVAL);
    return limits;
  }
#endif
  int logical = 0;
  if (block_device && ::ioctl(fd, BLKSSZGET, &logical) == 0 && logical > 0) {
    limits.block = static_cast<std::uint32_t>(logical);
  }
  return limits;
}

DirectFile::DirectFile(UniqueFd fd, UniqueFd buffered, std::string path, const FileOptions& options,
                       const FileIdentity& identity, const DirectLimits& limits)
    : FileStore(std::move(fd), std::move(path), options, identity, limits.block),
      buffered_(std::move(buffered)),
      limits_(limits),
      durable_blocks_(options.durable_blocks),
      grain_(identity.block_device ? limits.block : std::max<std::uint64_t>(limits.block, k_page_bytes)),
      tail_(tail_of(identity.size_bytes)) {}

std::uint64_t DirectFile::tail_of(std::uint64_t size) const noexcept {
  return size % limits_.block == 0 ? size : round_down(size, grain_);
}

bool DirectFile::whole_blocks(Range range) const noexcept {
  return ((range.offset | range.length) & (limits_.block - 1)) == 0;
}

bool DirectFile::aligned(const IovList& iov) const noexcept {
  return std::all_of(iov.begin(), iov.end(), [this](const iovec& piece) {
    return ((reinterpret_cast<std::uintptr_t>(piece.iov_base) | piece.iov_len) & (limits_.memory - 1)) == 0;
  });
}

RangeLock::Claim DirectFile::claim(Range range, std::uint64_t whole_bytes) noexcept {
  const bool whole = ((range.offset | range.length) & (whole_bytes - 1)) == 0;
  return {locks_, rounded_out(range, grain_), whole ? RangeLock::Mode::shared : RangeLock::Mode::exclusive};
}

Progress DirectFile::pull(Io& io, std::uint64_t at) noexcept {
  Ring* ring = io.queue->ring();
  return ring != nullptr ? ring->read(io, fd(), at) : Progress::done(read_all(fd(), at, io.iov));
}

Progress DirectFile::push(Io& io, std::uint64_t at, int rwf) noexcept {
  const bool blocks = durable_blocks_ && (rwf & RWF_DSYNC) != 0;
  Ring* ring = blocks ? nullptr : io.queue->ring();
  return ring != nullptr ? ring->write(io, fd(), at, rwf) : Progress::done(write_all(fd(), at, io.iov, rwf));
}

Progress DirectFile::read(Io& io, std::uint64_t at, std::span<std::byte> out, ReadMode mode) noexcept {
  const Range range{at, out.size()};
  assert(range.fits(size()));
  if (out.empty()) return Progress::done();
  if (mode == ReadMode::no_wait) return Progress::would_block();
  io.iov.clear();
  io.iov.push_back({out.data(), out.size()});
  if (whole_blocks(range) && aligned(io.iov) && range.end() <= tail_.load(std::memory_order_acquire)) {
    return pull(io, at);
  }
  return read_bounced(*io.queue, at, out).detach(io);
}

Task DirectFile::read_bounced(Queue& queue, std::uint64_t at, std::span<std::byte> out) {
  const std::uint64_t tail = tail_.load(std::memory_order_acquire);
  WaitIo wait(queue);
  while (!out.empty()) {
    if (at >= tail) co_return read_at(buffered_.get(), at, out).status;
    const std::uint64_t end =
        std::min({at + out.size(), tail, round_down(at, limits_.block) + k_bounce_bytes});
    const Range cover = rounded_out(between(at, end), limits_.block);
    const Buffer bounce = queue.buffers().take(cover.length);
    if (!bounce.valid()) co_return IoStatus::error(ENOMEM);
    wait.iov.clear();
    wait.iov.push_back({bounce.bytes().data(), cover.length});
    const IoStatus status = co_await wait(pull(wait, cover.offset));
    if (!status.ok()) co_return status;
    std::memcpy(out.data(), bounce.bytes().data() + (at - cover.offset), end - at);
    out = out.subspan(end - at);
    at = end;
  }
  co_return IoStatus{};
}

Progress DirectFile::write(Io& io, std::uint64_t at, WriteMode mode) noexcept {
  if (!writable()) return Progress::failed(EROFS);
  const Range range{at, iov_bytes(io.iov)};
  assert(range.fits(size()));
  if (range.empty()) return Progress::done();
  if (mode == WriteMode::cached) return write_claimed(io, range, 0).detach(io);
  return write_durably(io, range).detach(io);
}

Task DirectFile::write_durably(Io& io, Range range) {
  const IoStatus status = co_await write_claimed(io, range, RWF_DSYNC);
  // Whether the room was short for the bytes or for the barrier isn't known here, so the worse is told.
  co_return status.is_lack_of_room() ? IoStatus::error(EIO) : status;
}

Task DirectFile::write_claimed(Io& io, Range range, int rwf) {
  WaitIo wait(*io.queue);
  RangeLock::Claim held = claim(range, limits_.block);
  (void)co_await wait(held.acquire(wait));
  if (whole_blocks(range) && aligned(io.iov) && range.end() <= tail_.load(std::memory_order_acquire)) {
    wait.iov = io.iov;
    co_return co_await wait(push(wait, range.offset, rwf));
  }
  Payload payload(&io.iov);
  co_return co_await write_bounced(*io.queue, range, payload, rwf);
}

Task DirectFile::write_bounced(Queue& queue, Range range, Payload& payload, int rwf) {
  const std::uint64_t tail = tail_.load(std::memory_order_acquire);
  const std::uint64_t block = limits_.block;
  WaitIo wait(queue);
  while (!range.empty()) {
    const bool in_tail = range.offset >= tail;
    const std::uint64_t chunk_end = round_down(range.offset, block) + k_bounce_bytes;
    const Range part = between(range.offset, std::min({range.end(), in_tail ? size() : tail, chunk_end}));
    const Range cover = in_tail ? part : rounded_out(part, block);
    const Buffer bounce = queue.buffers().take(cover.length);
    if (!bounce.valid()) co_return IoStatus::error(ENOMEM);
    IoStatus status;
    if (!in_tail) status = co_await read_edges(queue, part, cover, bounce.bytes().data());
    if (!status.ok()) co_return status;
    payload.copy_to(bounce.bytes().data() + (part.offset - cover.offset), part.length);
    if (in_tail) {
      status = write_all(buffered_.get(), part.offset, bounce.bytes(), rwf);
    } else {
      wait.iov.clear();
      wait.iov.push_back({bounce.bytes().data(), cover.length});
      status = co_await wait(push(wait, cover.offset, rwf));
    }
    if (!status.ok()) co_return status;
    range = range.without_prefix(part.length);
  }
  co_return IoStatus{};
}

Task DirectFile::read_edges(Queue& queue, Range part, Range cover, std::byte* bytes) {
  const std::uint64_t block = limits_.block;
  const bool front = part.offset != cover.offset;
  const bool back = part.end() != cover.end();
  const bool single = cover.length == block;
  WaitIo wait(queue);
  if (front || (back && single)) {
    wait.iov.push_back({bytes, block});
    const IoStatus status = co_await wait(pull(wait, cover.offset));
    if (!status.ok()) co_return status;
  }
  if (back && !single) {
    wait.iov.clear();
    wait.iov.push_back({bytes + (cover.length - block), block});
    co_return co_await wait(pull(wait, cover.end() - block));
  }
  co_return IoStatus{};
}

Progress DirectFile::zero(Io& io, Range range, ZeroMode mode) noexcept {
  if (!writable()) return Progress::failed(EROFS);
  assert(range.fits(size()));
  if (range.empty()) return Progress::done();
  const Emptying how = mode == ZeroMode::allocate ? Emptying::allocate : Emptying::punch_or_zero;
  return empty_claimed(io, range, how).detach(io);
}

Progress DirectFile::discard(Io& io, Range range) noexcept {
  if (!writable()) return Progress::failed(EROFS);
  assert(range.fits(size()));
  if (range.empty() || !space().punches()) return Progress::done();
  return empty_claimed(io, range, Emptying::discard).detach(io);
}

Task DirectFile::empty_claimed(Io& io, Range range, Emptying how) {
  Queue& queue = *io.queue;
  WaitIo wait(queue);
  RangeLock::Claim held = claim(range, grain_);
  (void)co_await wait(held.acquire(wait));
  const std::uint64_t end = std::min(range.end(), tail_.load(std::memory_order_acquire));
  Range middle = between(round_up(range.offset, grain_), round_down(end, grain_));
  if (middle.empty()) middle = {range.end(), 0};
  IoStatus status = middle.empty() ? IoStatus{} : empty_middle(middle, how);
  if (!status.ok() || (how == Emptying::discard && !space().punches())) co_return status;
  Payload zeros(nullptr);
  for (const Range edge : {between(range.offset, middle.offset), between(middle.end(), range.end())}) {
    status = co_await write_bounced(queue, edge, zeros, 0);
    if (!status.ok()) co_return status;
  }
  co_return IoStatus{};
}

IoStatus DirectFile::empty_middle(Range range, Emptying how) noexcept {
  switch (how) {
    case Emptying::punch_or_zero:
      return space().zero(range, ZeroMode::may_punch);
    case Emptying::allocate:
      return space().zero(range, ZeroMode::allocate);
    case Emptying::discard:
      break;
  }
  return space().discard(range);
}

Progress DirectFile::grow(Io& io, std::uint64_t size) noexcept {
  const bool had_tail = tail_.load(std::memory_order_acquire) != this->size();
  const Progress grown = FileStore::grow(io, size);
  return grown.status().ok() ? move_tail(io, had_tail) : grown;
}

Progress DirectFile::follow_growth(Io& io) noexcept {
  const bool had_tail = tail_.load(std::memory_order_acquire) != this->size();
  const Progress grown = FileStore::follow_growth(io);
  return grown.status().ok() ? move_tail(io, had_tail) : grown;
}

// After the size has changed.
Progress DirectFile::move_tail(Io& io, bool had_tail) noexcept {
  const std::uint64_t old_tail = tail_.load(std::memory_order_acquire);
  if (had_tail) {
    // What was the tail may become whole blocks, so the page cache must not keep it.
    const Progress synced = sync(io);
    if (!synced.status().ok()) return synced;
    (void)::posix_fadvise(buffered_.get(), static_cast<off_t>(old_tail), 0, POSIX_FADV_DONTNEED);
  }
  tail_.store(tail_of(size()), std::memory_order_release);
  return Progress::done();
}

}  // namespace oxbow
