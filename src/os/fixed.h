// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <span>

namespace oxbow {

// A vector with room for N trivially destructible elements inside itself; never allocates. push_back on a
// full one is a programming error: ask full() first. Thread safety: none, like any container.
template <typename T, std::size_t N>
class Fixed {
 public:
  // User-provided on purpose: elements stay uninitialised until they are pushed, also in `Fixed<…> x{}`.
  Fixed() noexcept {}  // NOLINT(modernize-use-equals-default)

  [[nodiscard]] bool full() const noexcept { return size_ == N; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  [[nodiscard]] static constexpr std::size_t capacity() noexcept { return N; }
  [[nodiscard]] std::size_t room() const noexcept { return N - size_; }

  void push_back(const T& value) noexcept {
    assert(!full());
    items_[size_++] = value;
  }
  void clear() noexcept { size_ = 0; }

  [[nodiscard]] T& operator[](std::size_t index) noexcept { return items_[index]; }
  [[nodiscard]] const T& operator[](std::size_t index) const noexcept { return items_[index]; }
  [[nodiscard]] T& back() noexcept { return items_[size_ - 1]; }
  [[nodiscard]] T* begin() noexcept { return items_.data(); }
  [[nodiscard]] T* end() noexcept { return items_.data() + size_; }
  [[nodiscard]] const T* begin() const noexcept { return items_.data(); }
  [[nodiscard]] const T* end() const noexcept { return items_.data() + size_; }
  [[nodiscard]] std::span<T> span() noexcept { return {items_.data(), size_}; }
  [[nodiscard]] std::span<const T> span() const noexcept { return {items_.data(), size_}; }

 private:
  std::size_t size_ = 0;
  std::array<T, N> items_;
};

}  // namespace oxbow
