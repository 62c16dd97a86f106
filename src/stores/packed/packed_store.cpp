// SPDX-License-Identifier: Apache-2.0
#include "stores/packed/packed_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

#include "stores/packed/packed_index.h"

namespace oxbow {

Result<std::shared_ptr<PackedStore>> PackedStore::open(Queue& queue, std::shared_ptr<Store> file,
                                                       std::uint64_t cache_bytes) {
  auto index = read_packed_index(queue, *file);
  if (!index) return std::unexpected(index.error());
  return std::shared_ptr<PackedStore>(new PackedStore(std::move(file), std::move(*index), cache_bytes));
}

Progress PackedStore::read(Io& io, std::uint64_t at, std::span<std::byte> out, ReadMode mode) noexcept {
  const std::size_t cached = read_cached(at, out);
  if (cached == out.size()) return Progress::done();
  if (mode == ReadMode::no_wait) return Progress::would_block();
  return read_frames(*io.queue, at + cached, out.subspan(cached)).detach(io);
}

std::size_t PackedStore::read_cached(std::uint64_t at, std::span<std::byte> out) noexcept {
  std::size_t done = 0;
  while (done < out.size()) {
    const std::uint64_t frame = (at + done) / index_.frame_bytes();
    const FrameCache::Content content = cache_.find(frame);
    if (content == nullptr) break;
    const std::size_t from = (at + done) % index_.frame_bytes();
    const std::size_t length = std::min(content->size() - from, out.size() - done);
    std::memcpy(out.data() + done, content->data() + from, length);
    done += length;
  }
  return done;
}

Task PackedStore::read_frames(Queue& queue, std::uint64_t at, std::span<std::byte> out) {
  while (!out.empty()) {
    const std::size_t cached = read_cached(at, out);
    at += cached;
    out = out.subspan(cached);
    if (out.empty()) break;
    const std::uint64_t frame = at / index_.frame_bytes();
    const packed::FrameRecord& record = index_.frames()[frame];
    const Buffer buffer = queue.buffers().take(record.length);
    if (!buffer.valid()) co_return IoStatus::error(ENOMEM);
    WaitIo io(queue);
    const Progress progress = file_->read(io, record.offset, buffer.bytes(), ReadMode::may_wait);
    const IoStatus status = co_await io(progress);
    if (!status.ok()) co_return status;
    // Others may have brought the frame meanwhile, which is cheaper to copy from than to decompress again.
    FrameCache::Content content = cache_.find(frame);
    if (content == nullptr) {
      int error = 0;
      content = decode(frame, buffer.bytes(), error);
      if (content == nullptr) co_return IoStatus::error(error);
    }
    const std::size_t from = at % index_.frame_bytes();
    const std::size_t length = std::min(content->size() - from, out.size());
    std::memcpy(out.data(), content->data() + from, length);
    at += length;
    out = out.subspan(length);
  }
  co_return IoStatus{};
}

FrameCache::Content PackedStore::decode(std::uint64_t frame, std::span<const std::byte> stored,
                                        int& error) noexcept {
  try {
    auto content = std::make_shared<std::vector<std::byte>>(index_.content_bytes(frame));
    auto decompressor = take_decompressor();
    const char* const why = decompressor->decode(index_.frames()[frame], stored, *content);
    give_back(std::move(decompressor));
    if (why == nullptr) {
      cache_.insert(frame, content);
      return content;
    }
    note_damage(frame, why);
    error = EIO;
  } catch (const std::bad_alloc&) {
    error = ENOMEM;
  }
  return nullptr;
}

std::unique_ptr<packed::Decompressor> PackedStore::take_decompressor() {
  {
    const std::scoped_lock lock(idle_mutex_);
    if (!idle_.empty()) {
      auto decompressor = std::move(idle_.back());
      idle_.pop_back();
      return decompressor;
    }
  }
  return std::make_unique<packed::Decompressor>();
}

void PackedStore::give_back(std::unique_ptr<packed::Decompressor> decompressor) noexcept {
  const std::scoped_lock lock(idle_mutex_);
  try {
    idle_.push_back(std::move(decompressor));
  } catch (const std::bad_alloc&) {
    return;  // one less is kept
  }
}

void PackedStore::note_damage(std::uint64_t frame, const char* why) noexcept {
  const std::scoped_lock lock(damage_mutex_);
  if (!damage_.empty()) return;
  try {
    damage_ = fmt::format("cannot read packed layer: {}: frame {} at byte {} is damaged: {}", describe(),
                          frame, index_.frames()[frame].offset, why);
  } catch (const std::bad_alloc&) {
    damage_.clear();  // the reader is told all the same
  }
}

std::string PackedStore::damage() const {
  const std::scoped_lock lock(damage_mutex_);
  return damage_;
}

Progress PackedStore::write(Io& /*io*/, std::uint64_t /*at*/, WriteMode /*mode*/) noexcept {
  return Progress::failed(EROFS);
}
Progress PackedStore::zero(Io& /*io*/, Range /*range*/, ZeroMode /*mode*/) noexcept {
  return Progress::failed(EROFS);
}
Progress PackedStore::discard(Io& /*io*/, Range /*range*/) noexcept { return Progress::failed(EROFS); }
Progress PackedStore::allocate(Io& /*io*/, Range /*range*/) noexcept { return Progress::failed(EROFS); }
Progress PackedStore::grow(Io& /*io*/, std::uint64_t /*size*/) noexcept { return Progress::failed(EROFS); }

std::uint64_t PackedStore::extents(Range range, Extents& out) noexcept {
  out.push_back({range.length, Kind::data, 0, this, range.offset});
  return range.length;
}

void PackedStore::prefetch(Range range) noexcept {
  if (range.empty()) return;
  const packed::FrameRecord& first = index_.frames()[range.offset / index_.frame_bytes()];
  const packed::FrameRecord& last = index_.frames()[(range.end() - 1) / index_.frame_bytes()];
  file_->prefetch({first.offset, last.offset + last.length - first.offset});
}

}  // namespace oxbow
