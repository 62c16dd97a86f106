// SPDX-License-Identifier: Apache-2.0
#include "sim/sim_store.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

namespace oxbow::sim {
namespace {

constexpr std::size_t k_most_pieces = 4;

[[nodiscard]] bool changes_data(StoreCall kind) noexcept {
  return kind == StoreCall::write || kind == StoreCall::durable_write || kind == StoreCall::zero ||
         kind == StoreCall::discard;
}

[[nodiscard]] bool moves_data(StoreCall kind) noexcept {
  return changes_data(kind) || kind == StoreCall::read;
}

[[nodiscard]] std::uint64_t length_of(const Io& io) noexcept {
  std::uint64_t length = 0;
  for (const iovec& each : io.iov) length += each.iov_len;
  return length;
}

// The bytes [offset, offset + out.size()) of a gathered write.
void gather(const Io& io, std::uint64_t offset, std::span<std::byte> out) {
  for (const iovec& each : io.iov) {
    if (out.empty()) return;
    if (offset >= each.iov_len) {
      offset -= each.iov_len;
      continue;
    }
    const std::size_t length = std::min<std::size_t>(each.iov_len - offset, out.size());
    std::memcpy(out.data(), static_cast<const std::byte*>(each.iov_base) + offset, length);
    out = out.subspan(length);
    offset = 0;
  }
}

}  // namespace

std::string_view name_of(StoreCall call) noexcept {
  static constexpr std::string_view k_names[] = {"read",    "write", "durable write", "zero",
                                                 "discard", "sync",  "allocate",      "grow"};
  return k_names[static_cast<std::size_t>(call)];
}

// One call, from submission to completion. Thread safety: that of its store.
struct SimStore::Operation final : SimEvent {
  explicit Operation(SimStore& in) noexcept : store(&in) {}

  bool advance() override {
    if (!pieces.empty() && !store->dead_) {
      const std::size_t picked = store->queue_.chooser().below(pieces.size());
      const Range piece = pieces[picked];
      pieces[picked] = pieces.back();
      pieces.pop_back();
      store->apply(*this, piece);
      return true;
    }
    Io& finished = *io;
    finished.status = store->finish(*this);
    --store->under_way_;
    store->idle_.emplace_back(this);
    finished.complete(finished);
    return false;
  }

  SimStore* store;
  Io* io = nullptr;
  Wanted wanted{};
  int failure = 0;
  OperationId id = 0;
  Stamp submitted = 0;
  std::vector<Range> pieces;  // those that have not taken effect
};

SimStore::SimStore(SimQueue& queue, std::shared_ptr<SimDisk> disk, Options options)
    : queue_(queue), disk_(std::move(disk)), options_(std::move(options)) {}

SimStore::~SimStore() { assert(under_way_ == 0); }

std::unique_ptr<SimStore::Operation> SimStore::take() {
  if (idle_.empty()) return std::make_unique<Operation>(*this);
  std::unique_ptr<Operation> operation = std::move(idle_.back());
  idle_.pop_back();
  return operation;
}

int SimStore::failure_of(const Operation& operation) {
  const Call call{operation.wanted.kind, operation.wanted.range, calls_++};
  if (observe) observe(call);
  if (fault) {
    if (const int failure = fault(call); failure != 0) return failure;
  }
  const bool takes_room = operation.wanted.kind == StoreCall::write ||
                          operation.wanted.kind == StoreCall::durable_write ||
                          operation.wanted.kind == StoreCall::allocate ||
                          (operation.wanted.kind == StoreCall::zero && operation.wanted.keep_room);
  if (full_ && takes_room) {
    for (std::uint64_t at = operation.wanted.range.offset; at < operation.wanted.range.end();
         at = (at | 4095) + 1) {
      if (!disk_->has_room(at)) return ENOSPC;
    }
  }
  return 0;
}

// Cuts the range at sector borders into the pieces that take effect at different moments.
void SimStore::cut(Operation& operation) {
  Range left = operation.wanted.range;
  Chooser& chooser = queue_.chooser();
  while (!left.empty()) {
    const std::uint64_t sectors = (left.end() - 1) / k_sector_bytes - left.offset / k_sector_bytes + 1;
    std::uint64_t taken = sectors;
    if (operation.pieces.size() + 1 < k_most_pieces && chooser.chance(60)) taken = 1 + chooser.below(sectors);
    const std::uint64_t end = (left.offset / k_sector_bytes + taken) * k_sector_bytes;
    const Range piece = left.prefix(end - left.offset);
    operation.pieces.push_back(piece);
    left = left.without_prefix(piece.length);
  }
}

Progress SimStore::submit(Io& io, const Wanted& wanted) {
  if (dead_) return Progress::failed(EIO);
  std::unique_ptr<Operation> operation = take();
  operation->io = &io;
  operation->wanted = wanted;
  operation->failure = failure_of(*operation);
  operation->id = disk_->begin();
  operation->submitted = disk_->submit_barrier();
  operation->pieces.clear();
  queue_.trace().note(name_of(wanted.kind), options_.name, wanted.range.offset, wanted.range.length);
  if (operation->failure != 0) queue_.trace().note("fails", options_.name, calls_ - 1, 0);
  if (!wanted.at_once && queue_.chooser().chance(options_.pending_percent)) {
    if (moves_data(wanted.kind)) cut(*operation);
    ++under_way_;
    queue_.add(*operation.release());
    return Progress::pending();
  }
  if (moves_data(wanted.kind) && !wanted.range.empty()) apply(*operation, wanted.range);
  const IoStatus status = finish(*operation);
  idle_.push_back(std::move(operation));
  return Progress::done(status);
}

void SimStore::put(Operation& operation, Range piece) {
  std::byte bytes[k_sector_bytes];
  while (!piece.empty()) {
    const std::uint64_t in_sector = piece.offset % k_sector_bytes;
    const std::span<std::byte> part(bytes, std::min(piece.length, k_sector_bytes - in_sector));
    gather(*operation.io, piece.offset - operation.wanted.range.offset, part);
    if (operation.failure == 0 || queue_.chooser().chance(50)) disk_->put(operation.id, piece.offset, part);
    piece = piece.without_prefix(part.size());
  }
}

void SimStore::apply(Operation& operation, Range piece) {
  if (operation.failure != 0 && !changes_data(operation.wanted.kind)) return;
  switch (operation.wanted.kind) {
    case StoreCall::read:
      disk_->read(piece,
                  operation.wanted.out.subspan(piece.offset - operation.wanted.range.offset, piece.length));
      break;
    case StoreCall::write:
    case StoreCall::durable_write:
      put(operation, piece);
      break;
    case StoreCall::zero:
    case StoreCall::discard:
      if (operation.failure != 0 && queue_.chooser().chance(50)) break;
      if (operation.wanted.kind == StoreCall::zero || options_.punches)
        disk_->zero(operation.id, piece, operation.wanted.keep_room);
      break;
    default:
      break;
  }
  queue_.trace().note("effect", options_.name, piece.offset, piece.length);
}

IoStatus SimStore::finish(Operation& operation) {
  if (dead_) return IoStatus::error(EIO);
  queue_.trace().note("end", name_of(operation.wanted.kind), operation.wanted.range.offset, operation.id);
  const StoreCall kind = operation.wanted.kind;
  // A durable write finds out that there is no room before its barrier.
  const bool syncing = kind == StoreCall::durable_write && operation.failure != ENOSPC;
  if ((kind == StoreCall::sync || syncing) && operation.failure != 0) disk_->fail_barrier(queue_.chooser());
  if (operation.failure != 0) return IoStatus::error(operation.failure);
  if (operation.wanted.kind == StoreCall::grow) disk_->grow(operation.id, operation.wanted.range.length);
  if (operation.wanted.kind == StoreCall::allocate) disk_->allocate(operation.wanted.range);
  disk_->complete(operation.id);
  if (operation.wanted.kind == StoreCall::durable_write)
    disk_->make_durable(operation.id, operation.wanted.range);
  if (operation.wanted.kind == StoreCall::sync) disk_->complete_barrier(operation.submitted);
  return {};
}

Progress SimStore::read(Io& io, std::uint64_t at, std::span<std::byte> out, ReadMode mode) noexcept {
  assert((Range{at, out.size()}).fits(size()));
  if (mode == ReadMode::no_wait && queue_.chooser().chance(options_.would_block_percent)) {
    return Progress::would_block();
  }
  return submit(
      io,
      {.kind = StoreCall::read, .range = {at, out.size()}, .out = out, .at_once = mode == ReadMode::no_wait});
}

Progress SimStore::write(Io& io, std::uint64_t at, WriteMode mode) noexcept {
  assert(options_.writable && (Range{at, length_of(io)}).fits(size()));
  const StoreCall kind = mode == WriteMode::durable ? StoreCall::durable_write : StoreCall::write;
  return submit(io, {.kind = kind, .range = {at, length_of(io)}});
}

Progress SimStore::zero(Io& io, Range range, ZeroMode mode) noexcept {
  assert(options_.writable && range.fits(size()));
  return submit(io, {.kind = StoreCall::zero, .range = range, .keep_room = mode == ZeroMode::allocate});
}

Progress SimStore::discard(Io& io, Range range) noexcept {
  assert(options_.writable && range.fits(size()));
  return submit(io, {.kind = StoreCall::discard, .range = range});
}

Progress SimStore::sync(Io& io) noexcept { return submit(io, {.kind = StoreCall::sync, .range = {}}); }

Progress SimStore::allocate(Io& io, Range range) noexcept {
  assert(options_.writable && range.fits(size()));
  return submit(io, {.kind = StoreCall::allocate, .range = range});
}

Progress SimStore::grow(Io& io, std::uint64_t size) noexcept {
  assert(options_.writable);
  return submit(io, {.kind = StoreCall::grow, .range = {0, size}});
}

std::uint64_t SimStore::extents(Range range, Extents& out) noexcept {
  std::uint64_t covered = 0;
  while (covered < range.length && !out.full()) {
    const std::uint64_t at = range.offset + covered;
    const bool data = disk_->has_room(at);
    std::uint64_t end = data ? at : disk_->next_room(at);
    while (data && end < range.end() && disk_->has_room(end)) end = (end | 4095) + 1;
    const std::uint64_t length = std::min(end, range.end()) - at;
    out.push_back({length, data ? Kind::data : Kind::zero, 0, this, at});
    covered += length;
  }
  return covered;
}

std::span<const std::byte> SimStore::view(Range /*range*/) noexcept { return {}; }
std::span<std::byte> SimStore::memory(Range /*range*/) noexcept { return {}; }

}  // namespace oxbow::sim
