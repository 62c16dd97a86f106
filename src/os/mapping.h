// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <utility>

namespace oxbow {

// Owns a range of mapped memory. Errors are errno values. Thread safety: none; the memory is the user's
// business.
class Mapping {
 public:
  Mapping() noexcept = default;
  Mapping(Mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  // `bytes` of zeros that take no memory until they are touched, and none is promised. Never in huge pages, so that
  // touching one byte takes one small page.
  [[nodiscard]] static std::expected<Mapping, int> anonymous(std::uint64_t bytes) noexcept;
  // The first `bytes` of a file, shared and writable; takes no memory of its own.
  [[nodiscard]] static std::expected<Mapping, int> shared(int fd, std::uint64_t bytes) noexcept;
  // The same from byte `at` on, a multiple of the page size.
  [[nodiscard]] static std::expected<Mapping, int> shared_from(int fd, std::uint64_t at,
                                                               std::uint64_t bytes) noexcept;
  // The first `bytes`, read-only.
  [[nodiscard]] static std::expected<Mapping, int> shared_for_reading(int fd, std::uint64_t bytes) noexcept;
  // The same from byte `at` on, a multiple of the page size.
  [[nodiscard]] static std::expected<Mapping, int> shared_for_reading_from(int fd, std::uint64_t at,
                                                                           std::uint64_t bytes) noexcept;
  // Makes it longer, contents kept; its address may change.
  [[nodiscard]] int grow(std::uint64_t bytes) noexcept;

  [[nodiscard]] std::byte* data() const noexcept { return bytes_.data(); }
  [[nodiscard]] std::uint64_t size() const noexcept { return bytes_.size(); }

 private:
  explicit Mapping(void* start, std::size_t bytes) noexcept : bytes_(static_cast<std::byte*>(start), bytes) {}
  std::span<std::byte> bytes_;
};

}  // namespace oxbow
