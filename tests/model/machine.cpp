// SPDX-License-Identifier: Apache-2.0
#include "model/machine.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "os/queue.h"

namespace oxbow::model {
namespace {

constexpr std::size_t k_recent = 12;

[[nodiscard]] bool all_zero(std::span<const std::byte> bytes) {
  return std::ranges::all_of(bytes, [](std::byte each) { return each == std::byte{0}; });
}

[[nodiscard]] Range common(Range a, Range b) {
  const std::uint64_t from = std::max(a.offset, b.offset);
  const std::uint64_t to = std::min(a.end(), b.end());
  return from < to ? Range{from, to - from} : Range{from, 0};
}

}  // namespace

Machine::Machine(Scene& scene, sim::Random& random, Queue& queue)
    : scene_(scene), random_(random), queue_(queue), model_(scene.initial()) {
  open();
}

void Machine::open() {
  auto opened = open_device(queue_, scene_.spec(), {.name = "model"});
  if (!opened) {
    ADD_FAILURE() << opened.error().text();
    sound_ = false;
    return;
  }
  opened_ = std::move(*opened);
  pieces_ = scene_.pieces();
  EXPECT_EQ(opened_.device->size(), model_.size());
  sound_ = sound_ && opened_.device->size() == model_.size();
}

void Machine::close() {
  expect_ok(opened_.device->close(queue_));
  opened_ = {};
}

void Machine::note(const char* what, Range range) {
  recent_.push_back(fmt::format("{} {:#x}+{:#x}", what, range.offset, range.length));
  if (recent_.size() > k_recent) recent_.pop_front();
}

void Machine::expect_ok(IoStatus status) {
  if (status.ok()) return;
  sound_ = false;
  std::string done;
  for (const std::string& each : recent_) done += each + "\n";
  ADD_FAILURE() << "error " << status.error_number() << " after\n" << done;
}

void Machine::compare(std::uint64_t at, std::span<const std::byte> bytes, const char* by) {
  if (std::memcmp(bytes.data(), model_.data() + at, bytes.size()) == 0) return;
  const auto wrong = std::ranges::mismatch(bytes, std::span(model_).subspan(at, bytes.size()));
  const auto place = at + static_cast<std::uint64_t>(wrong.in1 - bytes.begin());
  std::string done;
  for (const std::string& each : recent_) done += each + "\n";
  ADD_FAILURE() << fmt::format("{}: byte {:#x} of {:#x} is {:#x}, not {:#x}, after\n{}", by, place,
                               model_.size(), static_cast<unsigned>(*wrong.in1),
                               static_cast<unsigned>(*wrong.in2), done);
  sound_ = false;
}

void Machine::fill_random(std::span<std::byte> out) {
  for (std::size_t at = 0; at < out.size(); at += 8) {
    const std::uint64_t word = random_.next();
    std::memcpy(out.data() + at, &word, std::min<std::size_t>(8, out.size() - at));
  }
}

Range Machine::draw_range() {
  const std::uint64_t size = model_.size();
  static constexpr std::uint64_t k_units[] = {1, 1, 8, 512, 512, 4096, 4096, 8192};
  const std::uint64_t unit = k_units[random_.below(std::size(k_units))];
  const std::uint64_t at = random_.below(size) / unit * unit;
  const std::uint64_t most = random_.chance(5) ? 200'000 : random_.chance(50) ? 600 : 14'000;
  const std::uint64_t length = std::max(random_.between(1, most) / unit, std::uint64_t{1}) * unit;
  return {at, std::min(length, size - at)};
}

Durability Machine::draw_durability() {
  return random_.below(100) == 0 ? Durability::when_completed : Durability::with_flush;
}

void Machine::put(std::uint64_t at, std::span<const std::byte> bytes) {
  std::memcpy(model_.data() + at, bytes.data(), bytes.size());
  forget_zeros();
}

// What is written to a zero target is gone.
void Machine::forget_zeros() {
  for (const Piece& piece : pieces_) {
    if (piece.kind == PieceKind::zero) std::memset(model_.data() + piece.range.offset, 0, piece.range.length);
  }
}

void Machine::write() {
  const Range range = draw_range();
  note("write", range);
  buffer_.resize(range.length);
  fill_random(buffer_);
  const Durability durability = draw_durability();
  expect_ok(run_blocking(
      queue_, [&](Io& io) { return opened_.device->write(io, range.offset, buffer_, durability); }));
  put(range.offset, buffer_);
}

// As an export does that receives straight into memory.
void Machine::receive() {
  const Range range = draw_range();
  const DirectWrite lease = opened_.device->direct(queue_, range);
  const std::span<std::byte> memory = lease.memory;
  if (memory.empty()) return;
  note("receive", range);
  ASSERT_EQ(memory.size(), range.length);
  fill_random(memory);
  opened_.device->received(queue_, range);
  put(range.offset, memory);
}

void Machine::zero() {
  const Range range = draw_range();
  note("zero", range);
  const bool allocate = random_.chance(50);
  const Durability durability = draw_durability();
  expect_ok(
      run_blocking(queue_, [&](Io& io) { return opened_.device->zero(io, range, allocate, durability); }));
  std::memset(model_.data() + range.offset, 0, range.length);
}

// Each sector that a plain file gave back is as it was, or zeros.
void Machine::zero_or_same(Range range) {
  while (!range.empty()) {
    const Range sector = range.prefix(k_sector_bytes - range.offset % k_sector_bytes);
    buffer_.assign(sector.length, std::byte{0x5A});
    expect_ok(run_blocking(queue_, [&](Io& io) { return opened_.device->read(io, sector.offset, buffer_); }));
    if (all_zero(buffer_)) std::memset(model_.data() + sector.offset, 0, sector.length);
    compare(sector.offset, buffer_, "read after discard");
    range = range.without_prefix(sector.length);
  }
}

void Machine::discard() {
  const Range range = draw_range();
  note("discard", range);
  const Durability durability = draw_durability();
  expect_ok(run_blocking(queue_, [&](Io& io) { return opened_.device->discard(io, range, durability); }));
  for (const Piece& piece : pieces_) {
    const Range hit = common(range, piece.range);
    if (hit.empty()) continue;
    if (piece.kind != PieceKind::layer) {
      zero_or_same(hit);
      continue;
    }
    // Whole clusters of the layer; its last one may be short.
    const std::uint64_t from = piece.at + (hit.offset - piece.range.offset);
    const std::uint64_t to = from + hit.length;
    const std::uint64_t first = (from + piece.cluster_bytes - 1) / piece.cluster_bytes * piece.cluster_bytes;
    const std::uint64_t last = to == piece.layer_bytes ? to : to / piece.cluster_bytes * piece.cluster_bytes;
    if (first < last) std::memset(model_.data() + piece.range.offset + (first - piece.at), 0, last - first);
  }
}

void Machine::flush() {
  note("flush", {});
  expect_ok(run_blocking(queue_, [&](Io& io) { return opened_.device->flush(io); }));
}

void Machine::read(Range range) {
  buffer_.assign(range.length, std::byte{0x5A});
  expect_ok(run_blocking(queue_, [&](Io& io) { return opened_.device->read(io, range.offset, buffer_); }));
  if (sound_) compare(range.offset, buffer_, "read");
}

// What is called zero is zero, and data is where it is said to be.
void Machine::extents() {
  const Range range = draw_range();
  Extents found;
  expect_ok(run_blocking(queue_, [&](Io& io) { return opened_.device->extents(io, range, found); }));
  std::uint64_t at = range.offset;
  for (const Extent& extent : found) {
    if (!sound_) return;
    if (extent.length == 0 || extent.length > range.end() - at || extent.kind == Kind::error) {
      note("extents", range);
      return expect_ok(IoStatus::error(ERANGE));
    }
    buffer_.assign(extent.length, std::byte{0});
    if (extent.kind == Kind::data) {
      expect_ok(run_blocking(
          queue_, [&](Io& io) { return extent.store->read(io, extent.at, buffer_, ReadMode::may_wait); }));
    }
    compare(at, buffer_, extent.kind == Kind::data ? "data extent" : "zero extent");
    at += extent.length;
  }
  if (at == range.offset) expect_ok(IoStatus::error(ENODATA));
}

void Machine::view() {
  const Range range = draw_range();
  ReadView view;
  if (!opened_.device->view(queue_, range, view)) return;
  std::uint64_t at = range.offset;
  for (const iovec& piece : view.pieces) {
    compare(at, {static_cast<const std::byte*>(piece.iov_base), piece.iov_len}, "view");
    at += piece.iov_len;
  }
  if (at != range.end()) expect_ok(IoStatus::error(ERANGE));
}

// What doesn't fit changes nothing.
void Machine::refuse() {
  const std::uint64_t size = model_.size();
  const std::uint64_t at =
      random_.chance(50) ? size - random_.below(std::min<std::uint64_t>(size, 99)) : UINT64_MAX - 3;
  buffer_.assign(100, std::byte{0xEE});
  const IoStatus read = run_blocking(queue_, [&](Io& io) { return opened_.device->read(io, at, buffer_); });
  EXPECT_EQ(read, IoStatus::error(EINVAL));
  const IoStatus written = run_blocking(
      queue_, [&](Io& io) { return opened_.device->write(io, at, buffer_, Durability::with_flush); });
  EXPECT_EQ(written, IoStatus::error(ENOSPC));
}

void Machine::reopen() {
  if (!scene_.lasts()) return;
  note("close and open", {});
  close();
  if (random_.chance(50)) {
    if (const std::uint64_t size = scene_.grow(queue_); size != 0) {
      note("new layer", {0, size});
      model_.resize(size);
    }
  }
  open();
  if (sound_) read({0, model_.size()});
}

bool Machine::step() {
  const std::uint64_t drawn = random_.below(1000);
  if (drawn < 380) {
    write();
  } else if (drawn < 450) {
    receive();
  } else if (drawn < 520) {
    zero();
  } else if (drawn < 600) {
    discard();
  } else if (drawn < 605) {
    flush();
  } else if (drawn < 880) {
    read(draw_range());
  } else if (drawn < 950) {
    extents();
  } else if (drawn < 990) {
    view();
  } else if (drawn < 997) {
    refuse();
  } else {
    reopen();
  }
  return sound_ && !testing::Test::HasFailure();
}

bool Machine::finish() {
  if (!sound_) return false;
  read({0, model_.size()});
  close();
  const std::string wrong = scene_.verify();
  EXPECT_EQ(wrong, "");
  return sound_ && wrong.empty();
}

}  // namespace oxbow::model
