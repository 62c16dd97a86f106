// SPDX-License-Identifier: Apache-2.0
#pragma once

// For the tests of this folder: a device over plain memory that can be slow, and fail, on command.

#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "device/device.h"
#include "os/queue.h"

namespace oxbow::nbd {

// A store in a vector. As `memory` it offers its bytes to be sent from and received into. While `held`,
// operations stay pending until release(); then they are carried out, so that a buffer that was given up too
// early shows.
// Thread safety: from any thread.
class TestStore final : public Store {
 public:
  explicit TestStore(std::size_t bytes, bool memory = false) : bytes_(bytes), memory_(memory) {}

  void hold() {
    const std::scoped_lock lock(mutex_);
    held_ = true;
  }
  void release() {
    const std::scoped_lock lock(mutex_);
    held_ = false;
    for (const auto& [io, action] : waiting_) io->queue->post(*io, action());
    waiting_.clear();
  }
  [[nodiscard]] std::size_t waiting() {
    const std::scoped_lock lock(mutex_);
    return waiting_.size();
  }
  void fail_with(int error_number) {
    const std::scoped_lock lock(mutex_);
    error_ = error_number;
  }
  // The lengths of all writes so far.
  [[nodiscard]] std::vector<std::size_t> writes() {
    const std::scoped_lock lock(mutex_);
    return writes_;
  }
  [[nodiscard]] std::size_t durable_writes() {
    const std::scoped_lock lock(mutex_);
    return durable_writes_;
  }
  [[nodiscard]] std::size_t allocations() {
    const std::scoped_lock lock(mutex_);
    return allocations_;
  }
  [[nodiscard]] std::vector<std::byte> contents() {
    const std::scoped_lock lock(mutex_);
    return bytes_;
  }
  void fill(std::byte value) {
    const std::scoped_lock lock(mutex_);
    std::ranges::fill(bytes_, value);
  }

  Progress read(Io& io, std::uint64_t at, std::span<std::byte> out, ReadMode mode) noexcept override {
    const std::scoped_lock lock(mutex_);
    if (held_ && mode == ReadMode::no_wait) return Progress::would_block();
    return carry_out(io, [this, at, out] { std::memcpy(out.data(), &bytes_[at], out.size()); });
  }
  Progress write(Io& io, std::uint64_t at, WriteMode mode) noexcept override {
    const std::scoped_lock lock(mutex_);
    if (mode == WriteMode::durable) ++durable_writes_;
    std::size_t length = 0;
    for (const iovec& piece : io.iov) length += piece.iov_len;
    writes_.push_back(length);
    return carry_out(io, [this, at, &io] {
      std::size_t to = at;
      for (const iovec& piece : io.iov) {
        std::memcpy(&bytes_[to], piece.iov_base, piece.iov_len);
        to += piece.iov_len;
      }
    });
  }
  Progress zero(Io& io, Range range, ZeroMode mode) noexcept override {
    const std::scoped_lock lock(mutex_);
    if (mode == ZeroMode::allocate) ++allocations_;
    return carry_out(io, [this, range] { std::memset(&bytes_[range.offset], 0, range.length); });
  }
  Progress discard(Io& io, Range range) noexcept override { return zero(io, range, ZeroMode::may_punch); }
  Progress sync(Io& io) noexcept override {
    const std::scoped_lock lock(mutex_);
    return carry_out(io, [] {});
  }
  Progress allocate(Io& /*io*/, Range /*range*/) noexcept override { return Progress::done(); }
  Progress grow(Io& /*io*/, std::uint64_t /*size*/) noexcept override { return Progress::failed(EOPNOTSUPP); }
  std::uint64_t extents(Range range, Extents& out) noexcept override {
    out.push_back({range.length, Kind::data, 0, this, range.offset});
    return range.length;
  }
  std::span<const std::byte> view(Range range) noexcept override { return memory(range); }
  std::span<std::byte> memory(Range range) noexcept override {
    if (!memory_) return {};
    return std::span(bytes_).subspan(range.offset, range.length);
  }
  [[nodiscard]] bool in_memory() const noexcept override { return memory_; }
  [[nodiscard]] std::uint64_t size() const noexcept override { return bytes_.size(); }
  [[nodiscard]] bool writable() const noexcept override { return true; }
  [[nodiscard]] std::string describe() const override { return "test store"; }

 private:
  template <typename Action>
  Progress carry_out(Io& io, Action action) {
    auto checked = [this, action] {
      if (error_ != 0) return IoStatus::error(error_);
      action();
      return IoStatus{};
    };
    if (!held_) return Progress::done(checked());
    waiting_.emplace_back(&io, checked);
    return Progress::pending();
  }

  std::mutex mutex_;  // guards everything below but the bytes that are given out as memory
  std::vector<std::byte> bytes_;
  bool memory_;
  bool held_ = false;
  int error_ = 0;
  std::vector<std::pair<Io*, std::function<IoStatus()>>> waiting_;
  std::vector<std::size_t> writes_;
  std::size_t durable_writes_ = 0;
  std::size_t allocations_ = 0;
};

// The store, byte for byte. Thread safety: as for targets.
class TestTarget final : public Target {
 public:
  explicit TestTarget(std::shared_ptr<TestStore> store) : store_(std::move(store)) {}

  [[nodiscard]] Step locate(Range range, Extents& out) const noexcept override {
    out.push_back({range.length, Kind::data, 0, store_.get(), range.offset});
    return Step::ready(range.length);
  }
  [[nodiscard]] Step plan(Range range, const Change& change, Plan& plan) noexcept override {
    plan.owner = this;
    plan.durable_alone = true;
    if (change.operation == Operation::discard) {
      plan.punch = range;
      plan.punch_store = store_.get();
      return Step::ready(range.length);
    }
    plan.has_move = true;
    plan.move.store = store_.get();
    plan.move.at = range.offset;
    plan.move.body = range.length;
    plan.move.from = change.operation == Operation::write ? Source::payload : Source::zeros;
    plan.move.allocate = change.allocate;
    return Step::ready(range.length);
  }
  void commit(Plan& /*plan*/) noexcept override {}
  void capture(FlushPlan& plan) noexcept override { plan.rounds[0].sync(*store_); }
  [[nodiscard]] std::uint64_t size() const noexcept override { return store_->size(); }
  [[nodiscard]] bool writable() const noexcept override { return true; }
  [[nodiscard]] TargetStatus status() const override { return {"test", "", ""}; }

 private:
  std::shared_ptr<TestStore> store_;
};

// Thread safety: as for stores and devices.
struct TestDevice {
  explicit TestDevice(std::size_t bytes, bool memory = false, bool read_only = false)
      : store(std::make_shared<TestStore>(bytes, memory)),
        device(std::make_shared<TestTarget>(store), {.name = "test", .read_only = read_only}) {}
  std::shared_ptr<TestStore> store;
  Device device;
};

}  // namespace oxbow::nbd
