// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace oxbow::cowloop {

// What a cowfile remembers of its read-only file: the sums, modulo 256, of the bytes of the first four blocks whose sum
// is not 0. Fed with the blocks in order, of which those that hold only zeros may be left out. Thread safety: a value.
class Fingerprint {
 public:
  // One block of k_block_bytes.
  void add(std::span<const std::byte> block) noexcept;
  // Nothing that follows changes it.
  [[nodiscard]] bool done() const noexcept { return sums_ == 4; }
  [[nodiscard]] std::uint32_t value() const noexcept { return value_; }

 private:
  std::uint32_t value_ = 0;
  unsigned sums_ = 0;
};

}  // namespace oxbow::cowloop
