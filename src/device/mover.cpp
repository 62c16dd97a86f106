// SPDX-License-Identifier: Apache-2.0
#include "device/mover.h"

#include <array>
#include <cstring>

#include "device/statistics.h"
#include "device/zeros.h"
#include "os/canary.h"

namespace oxbow {

alignas(4096) constexpr std::array<std::byte, k_zeros_bytes> k_zeros{};

namespace {

// Appends `length` bytes at `base`, which nobody will write to.
void append(Io& io, const std::byte* base, std::uint64_t length) noexcept {
  if (length == 0) return;
  // iovec has no const form; stores only read from the list of a write.
  io.iov.push_back({const_cast<std::byte*>(base), length});  // NOLINT(cppcoreguidelines-pro-type-const-cast)
}

void append_zeros(Io& io, std::uint64_t length) noexcept {
  while (length > 0) {
    const std::uint64_t piece = std::min<std::uint64_t>(length, k_zeros.size());
    append(io, k_zeros.data(), piece);
    length -= piece;
  }
}

[[nodiscard]] IoStatus error_of(const Extent& extent) noexcept {
  return IoStatus::error(static_cast<int>(extent.at));
}

}  // namespace

std::uint64_t Mover::read_now(Io& io, Range range, std::span<std::byte> out, IoStatus& status) noexcept {
  std::uint64_t filled = 0;
  while (!range.empty()) {
    Extents extents;
    const Step step = target_->locate(range, extents);
    if (step.answer == Answer::failed) status = IoStatus::error(static_cast<int>(step.key));
    if (step.answer != Answer::ready) return filled;
    for (const Extent& extent : extents) {
      const auto piece = out.subspan(filled, extent.length);
      if (extent.kind == Kind::zero) {
        std::memset(piece.data(), 0, piece.size());
      } else if (extent.kind == Kind::error) {
        status = error_of(extent);
        return filled;
      } else {
        const Progress progress = extent.store->read(io, extent.at, piece, ReadMode::no_wait);
        if (!progress.is_done()) return filled;
        status = progress.status();
        if (!status.ok()) return filled;
        statistics_.add(io.queue->shard(), reads_from(extent.layer));
      }
      filled += extent.length;
    }
    range = range.without_prefix(step.length);
  }
  return filled;
}

Task Mover::read(Queue& queue, const Target& from, Range range, std::span<std::byte> out) {
  WaitBatch<k_extents_per_answer> batch(queue);
  while (!range.empty()) {
    Extents extents;
    const Step step = from.locate(range, extents);
    if (step.answer != Answer::ready) {
      const IoStatus waited = co_await wait_for(queue, step);
      if (!waited.ok()) co_return waited;
      continue;
    }
    for (const Extent& extent : extents) {
      const auto piece = out.first(extent.length);
      out = out.subspan(extent.length);
      if (extent.kind == Kind::zero) {
        std::memset(piece.data(), 0, piece.size());
      } else if (extent.kind == Kind::error) {
        batch.submitted(Progress::done(error_of(extent)));
      } else {
        Io& io = batch.next();
        statistics_.add(queue.shard(), reads_from(extent.layer));
        batch.submitted(extent.store->read(io, extent.at, piece, ReadMode::may_wait));
      }
    }
    const IoStatus status = co_await batch;
    if (!status.ok()) co_return status;
    range = range.without_prefix(step.length);
  }
  co_return IoStatus{};
}

Task Mover::wait_for(Queue& queue, Step step) {
  Store* full = nullptr;
  const IoStatus status = co_await wait_for(queue, step, full);
  co_return status;
}

Task Mover::wait_for(Queue& queue, Step step, Store*& full) {
  if (step.answer == Answer::busy) {
    statistics_.add(queue.shard(), Counter::waits);
    WaitIo io(queue);
    const Progress progress = step.owner->wait(io, step.key);
    const IoStatus status = co_await io(progress);
    co_return status;
  }
  if (step.answer == Answer::prepare) {
    const IoStatus status = co_await prepare(queue, *step.owner, step.key, full);
    co_return status;
  }
  co_return step.answer == Answer::failed ? IoStatus::error(static_cast<int>(step.key)) : IoStatus{};
}

Task Mover::prepare(Queue& queue, Target& owner, std::uint64_t key, Store*& full) {
  Preparation preparation;
  preparation.key = key;
  owner.prepare(preparation);
  if (preparation.buffer_bytes > 0) {
    preparation.buffer = queue.buffers().take(preparation.buffer_bytes);
    if (!preparation.buffer.valid()) {
      owner.prepared(preparation, IoStatus::error(ENOMEM));
      co_return IoStatus::error(ENOMEM);
    }
  }
  owner.fill(preparation);
  IoStatus status;
  WaitIo io(queue);
  for (const PrepareStep& step : preparation.steps) {
    Progress progress = Progress::done();
    switch (step.what) {
      case PrepareStep::What::read:
        progress = step.store->read(io, step.at, preparation.buffer.bytes().subspan(step.offset, step.length),
                                    ReadMode::may_wait);
        break;
      case PrepareStep::What::write:
        io.iov.clear();
        append(io, preparation.buffer.bytes().data() + step.offset, step.length);
        statistics_.add(queue.shard(), Counter::metadata_bytes, step.length);
        progress = step.store->write(io, step.at, WriteMode::cached);
        break;
      case PrepareStep::What::sync:
        progress = step.store->sync(io);
        break;
      case PrepareStep::What::allocate:
        progress = step.store->allocate(io, {step.at, step.length});
        break;
    }
    status = co_await io(progress);
    // Where a file system cannot reserve, room is found, or not, when it is written.
    const bool hint = step.what == PrepareStep::What::allocate;
    if (hint && status.error_number() == EOPNOTSUPP) status = {};
    if (status.ok()) continue;
    const bool lacked =
        step.what == PrepareStep::What::write && preparation.optional && status.is_lack_of_room();
    const bool metadata = step.what == PrepareStep::What::write || step.what == PrepareStep::What::sync;
    if (metadata && !lacked) failure_.set(status);
    full = step.store;
    break;
  }
  owner.prepared(preparation, status);
  if (status.ok()) status = preparation.refused;
  co_return status;
}

Task Mover::change(Queue& queue, Range& range, Change change, std::span<const std::byte>& data, bool& join,
                   Store*& full) {
  Plan plan;
  while (!range.empty()) {
    const Step step = target_->plan(range, change, plan);
    if (step.answer != Answer::ready) {
      const IoStatus waited = co_await wait_for(queue, step, full);
      if (!waited.ok()) co_return waited;
      continue;
    }
    const bool payload = change.operation == Operation::write;
    if (plan.owner != nullptr) {
      const bool alone = change.durable && plan.durable_alone;
      // Not written inside the co_await: there g++ 12 evaluates both sides of a conditional.
      const auto piece = payload ? data.first(step.length) : std::span<const std::byte>{};
      full = plan.has_move ? plan.move.store : plan.punch_store;
      const IoStatus status = co_await carry_out(queue, plan, piece, alone);
      if (change.durable && !alone) join = true;
      if (!status.ok()) co_return status;
    }
    plan.reset();
    if (payload) data = data.subspan(step.length);
    range = range.without_prefix(step.length);
  }
  co_return IoStatus{};
}

Task Mover::carry_out(Queue& queue, Plan& plan, std::span<const std::byte> payload, bool durable) {
  if (canary(Canary::claim_dropped_early)) plan.drop_claims();
  if (plan.fresh_bytes > 0) {
    const IoStatus spare = plan.move.store->room({plan.move.at, plan.move.length()});
    if (!spare.ok()) co_return spare;
  }
  if (plan.has_move) {
    const IoStatus moved = co_await move(queue, plan, payload, durable);
    // A durable write is a barrier too: when that part of it fails, what earlier writes left in the same pages
    // may be lost.
    if (!moved.ok() && durable && !moved.is_lack_of_room()) failure_.set(moved);
    if (!moved.ok()) co_return moved;
  }
  plan.owner->commit(plan);
  if (canary(Canary::punch_without_claim)) plan.drop_claims();
  if (!plan.punch.empty()) {
    WaitIo io(queue);
    const Progress progress = plan.punch_store->discard(io, plan.punch);
    const IoStatus punched = co_await io(progress);
    if (!punched.ok()) co_return punched;
  }
  co_return IoStatus{};
}

Task Mover::move(Queue& queue, const Plan& plan, std::span<const std::byte> payload, bool durable) {
  const Move& move = plan.move;
  WaitIo io(queue);
  if (move.from == Source::zeros && move.head == 0 && move.tail == 0) {
    const Progress progress =
        move.store->zero(io, {move.at, move.body}, move.allocate ? ZeroMode::allocate : ZeroMode::may_punch);
    const IoStatus zeroed = co_await io(progress);
    co_return zeroed;
  }
  Buffer head;
  Buffer tail;
  if (move.head > 0) {
    head = queue.buffers().take(move.head);
    if (!head.valid()) co_return IoStatus::error(ENOMEM);
    const IoStatus filled = co_await fill(queue, move.head_below, {move.head_from, move.head}, head.bytes());
    if (!filled.ok()) co_return filled;
  }
  if (move.tail > 0) {
    tail = queue.buffers().take(move.tail);
    if (!tail.valid()) co_return IoStatus::error(ENOMEM);
    const IoStatus filled = co_await fill(queue, move.tail_below, {move.tail_from, move.tail}, tail.bytes());
    if (!filled.ok()) co_return filled;
  }
  std::uint64_t at = move.at;
  if (canary(Canary::fill_in_omitted)) {
    at += move.head;
  } else {
    append(io, head.bytes().data(), move.head);
  }
  if (move.from == Source::zeros) {
    append_zeros(io, move.body);
  } else {
    append(io, payload.data(), move.body);
  }
  if (!canary(Canary::fill_in_omitted)) append(io, tail.bytes().data(), move.tail);
  statistics_.add(queue.shard(), Counter::stored_bytes, move.length());
  const Progress progress = move.store->write(io, at, durable ? WriteMode::durable : WriteMode::cached);
  const IoStatus written = co_await io(progress);
  co_return written;
}

Task Mover::fill(Queue& queue, Target* below, Range range, std::span<std::byte> out) {
  if (below == nullptr) {
    std::memset(out.data(), 0, out.size());
    co_return IoStatus{};
  }
  statistics_.add(queue.shard(), Counter::filled_bytes, range.length);
  const IoStatus status = co_await read(queue, *below, range, out);
  co_return status;
}

Task Mover::prefetch(Queue& queue, Range range) {
  while (!range.empty()) {
    Extents extents;
    const Step step = target_->locate(range, extents);
    if (step.answer != Answer::ready) {
      const IoStatus waited = co_await wait_for(queue, step);
      if (!waited.ok()) co_return waited;
      continue;
    }
    for (const Extent& extent : extents) {
      if (extent.kind == Kind::data) extent.store->prefetch({extent.at, extent.length});
    }
    range = range.without_prefix(step.length);
  }
  co_return IoStatus{};
}

Task Mover::extents(Queue& queue, Range range, Extents& out) {
  Extents coarse;
  for (;;) {
    const Step step = target_->locate(range, coarse);
    if (step.answer == Answer::ready) break;
    const IoStatus waited = co_await wait_for(queue, step);
    if (!waited.ok()) co_return waited;
  }
  for (const Extent& extent : coarse) {
    if (out.full()) break;
    if (extent.kind != Kind::data) {
      out.push_back(extent);
      continue;
    }
    const std::size_t first = out.size();
    const std::uint64_t covered = extent.store->extents({extent.at, extent.length}, out);
    for (std::size_t i = first; i < out.size(); ++i) out[i].layer = extent.layer;
    if (covered < extent.length) break;
  }
  co_return IoStatus{};
}

}  // namespace oxbow
