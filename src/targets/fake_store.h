// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cerrno>
#include <span>
#include <string>

#include "stores/store.h"

namespace oxbow {

// A store for tests of translation: it has a size and nothing else, and whoever asks it to move bytes gets
// EIO. Thread safety: immutable.
class FakeStore final : public Store {
 public:
  explicit FakeStore(std::uint64_t size) noexcept : size_(size) {}

  Progress read(Io&, std::uint64_t, std::span<std::byte>, ReadMode) noexcept override {
    return Progress::failed(EIO);
  }
  Progress write(Io&, std::uint64_t, WriteMode) noexcept override { return Progress::failed(EIO); }
  Progress zero(Io&, Range, ZeroMode) noexcept override { return Progress::failed(EIO); }
  Progress discard(Io&, Range) noexcept override { return Progress::failed(EIO); }
  Progress sync(Io&) noexcept override { return Progress::failed(EIO); }
  Progress allocate(Io&, Range) noexcept override { return Progress::failed(EIO); }
  Progress grow(Io&, std::uint64_t) noexcept override { return Progress::failed(EIO); }
  std::uint64_t extents(Range range, Extents& out) noexcept override {
    out.push_back({range.length, Kind::data, 0, this, range.offset});
    return range.length;
  }
  std::span<const std::byte> view(Range) noexcept override { return {}; }
  std::span<std::byte> memory(Range) noexcept override { return {}; }
  [[nodiscard]] std::uint64_t size() const noexcept override { return size_; }
  [[nodiscard]] bool writable() const noexcept override { return true; }
  [[nodiscard]] std::string describe() const override { return "fake"; }

 private:
  std::uint64_t size_;
};

}  // namespace oxbow
