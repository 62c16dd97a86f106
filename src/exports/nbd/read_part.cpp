// SPDX-License-Identifier: Apache-2.0
#include "exports/nbd/read_part.h"

#include <algorithm>

namespace oxbow::nbd {
namespace {

constexpr std::size_t k_runs = 8;
// Where so little is known at a time, the device is too fragmented for it to pay.
constexpr std::uint64_t k_least_known_bytes = 128U << 10;

// Bytes of the device that are answered with one chunk.
struct Run {
  Range range;
  Kind kind;
  int error;
};
using Runs = Fixed<Run, k_runs>;
static_assert(k_runs + 1 <= Reply::k_max_chunks, "and an error");

// Appends a piece, or makes the last run longer. Zeros that are too few for a chunk count as data. False when
// there is no room.
bool add(Runs& runs, Range range, Kind kind, int error) noexcept {
  if (!runs.empty() && runs.back().kind == kind) {
    runs.back().range.length += range.length;
    return true;
  }
  if (runs.full()) return false;
  runs.push_back({range, kind, error});
  return true;
}

// The runs of a prefix of `range`, with at most k_part_bytes of data.
Runs runs_of(Range range, const Extents& extents) noexcept {
  Runs runs;
  std::uint64_t room = k_part_bytes;
  for (std::size_t i = 0; i < extents.size() && room > 0; ++i) {
    const bool zero = extents[i].kind == Kind::zero;
    std::uint64_t length = extents[i].length;
    while (zero && i + 1 < extents.size() && extents[i + 1].kind == Kind::zero) length += extents[++i].length;
    Kind kind = extents[i].kind;
    if (zero && length < k_hole_bytes) kind = Kind::data;
    if (kind == Kind::data) length = std::min(length, room);
    const int error = kind == Kind::error ? static_cast<int>(extents[i].at) : 0;
    if (!add(runs, range.prefix(length), kind, error)) break;
    if (kind == Kind::data) room -= length;
    if (kind == Kind::error) break;
    range = range.without_prefix(length);
  }
  return runs;
}

Task find_runs(Queue& queue, Device& device, Range left, Runs& runs) {
  Extents extents;
  WaitIo io(queue);
  const Progress progress = device.extents(io, left, extents);
  const IoStatus status = co_await io(progress);
  if (!status.ok()) co_return status;
  std::uint64_t known = 0;
  for (const Extent& extent : extents) known += extent.length;
  runs = runs_of(left, extents);
  if (extents.full() && known < k_least_known_bytes) {
    runs.clear();
    runs.push_back({left.prefix(k_part_bytes), Kind::data, 0});
  }
  co_return IoStatus{};
}

// Reads the runs of data one after the other until one fails, which then says so.
Task find_failure(Queue& queue, Device& device, Runs& runs, std::span<std::byte> out) {
  WaitIo io(queue);
  for (Run& run : runs) {
    if (run.kind != Kind::data) continue;
    const Progress progress = device.read(io, run.range.offset, out.first(run.range.length));
    const IoStatus status = co_await io(progress);
    if (!status.ok()) {
      run.kind = Kind::error;
      run.error = status.error_number();
      break;
    }
    out = out.subspan(run.range.length);
  }
  co_return IoStatus{};
}

Task read_data(Queue& queue, Device& device, Runs& runs, Buffer& buffer) {
  std::uint64_t bytes = 0;
  for (const Run& run : runs) bytes += run.kind == Kind::data ? run.range.length : 0;
  if (bytes == 0) co_return IoStatus{};
  buffer = queue.buffers().take(bytes);
  if (!buffer.valid()) co_return IoStatus::error(ENOMEM);
  auto out = buffer.bytes();
  WaitBatch<k_runs> batch(queue);
  for (const Run& run : runs) {
    if (run.kind != Kind::data) continue;
    Io& io = batch.next();
    batch.submitted(device.read(io, run.range.offset, out.first(run.range.length)));
    out = out.subspan(run.range.length);
  }
  const IoStatus status = co_await batch;
  if (!status.ok()) {
    // Which it was, and all that can be had before it.
    (void)co_await find_failure(queue, device, runs, buffer.bytes());
  }
  co_return IoStatus{};
}

void put_chunks(const Runs& runs, Request& request) noexcept {
  const std::uint64_t cookie = request.header.cookie;
  std::byte* data = request.buffer.bytes().data();
  for (const Run& run : runs) {
    if (run.kind == Kind::error) {
      request.left = {};
      return put_error_at(request.reply, cookie, wire_error(IoStatus::error(run.error)), run.range.offset);
    }
    request.left = request.left.without_prefix(run.range.length);
    const Last last = request.left.empty() ? Last::yes : Last::no;
    if (run.kind == Kind::zero) {
      put_hole(request.reply, cookie, run.range, last);
      continue;
    }
    request.reply.data.pieces.push_back({data, run.range.length});
    put_data(request.reply, cookie, run.range.offset, static_cast<std::uint32_t>(run.range.length), 1, last);
    data += run.range.length;
  }
}

}  // namespace

Task read_part(Queue& queue, Device& device, Request& request) {
  request.reply.clear();
  request.buffer = {};
  Runs runs;
  const IoStatus found = co_await find_runs(queue, device, request.left, runs);
  if (!found.ok()) co_return found;
  const IoStatus status = co_await read_data(queue, device, runs, request.buffer);
  if (!status.ok()) co_return status;
  put_chunks(runs, request);
  co_return IoStatus{};
}

}  // namespace oxbow::nbd
