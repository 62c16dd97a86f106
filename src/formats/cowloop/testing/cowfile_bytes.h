// SPDX-License-Identifier: Apache-2.0
#pragma once

// Cowfiles for tests, put down byte by byte as the specification has them: nothing here knows the codec.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

namespace oxbow::cowloop::testing {

using Bytes = std::vector<std::byte>;

// Thread safety: a value.
struct CowfileBytes {
  bool wide = true;  // 8 bytes to an `unsigned long`, else 4
  std::uint16_t flags = 0;
  std::uint64_t blocks = 20;
  std::uint64_t fingerprint = 0;              // as it is stored, all 64 bits of it
  std::uint64_t used = ~std::uint64_t{1};     // as it is stored; ~1: as many as there are in `data`
  std::map<std::uint64_t, Bytes> data = {};   // by block; 1024 bytes each
  std::vector<std::uint64_t> more_bits = {};  // set without data
  std::vector<std::uint64_t> less_bits = {};  // with data, not set
  std::uint64_t length = 0;  // of the whole file; 0: up to the last block, or to the bitmap's end without any
  bool packed = false;       // blocks follow each other

  [[nodiscard]] std::uint64_t map_bytes() const { return ((blocks + 7) / 8 + 1023) / 1024 * 1024; }
  [[nodiscard]] std::uint64_t data_at() const { return (1024 + map_bytes() + 4095) / 4096 * 4096; }

  [[nodiscard]] Bytes make() const {
    Bytes file(1024 + map_bytes());
    const auto put = [&](std::size_t at, std::uint64_t value, std::size_t bytes) {
      for (std::size_t i = 0; i < bytes; ++i) file[at + i] = static_cast<std::byte>(value >> (8 * i));
    };
    put(0, 0x574f437f, 4);
    put(4, 1, 2);
    put(6, flags, 2);
    std::size_t at = 8;
    for (const std::uint64_t word : {std::uint64_t{1024}, map_bytes(), data_at(), blocks, fingerprint,
                                     used == ~std::uint64_t{1} ? data.size() : used}) {
      put(at, word, wide ? 8 : 4);
      at += wide ? 8 : 4;
    }
    std::uint64_t rank = 0;
    for (const auto& [block, bytes] : data) {
      flip(file, block);
      const std::uint64_t to = data_at() + ((packed ? rank++ : block) * 1024);
      if (file.size() < to + 1024) file.resize(to + 1024);
      for (std::size_t i = 0; i < 1024; ++i) file[to + i] = bytes[i];
    }
    for (const std::uint64_t block : more_bits) flip(file, block);
    for (const std::uint64_t block : less_bits) flip(file, block);
    if (length != 0) file.resize(length);
    return file;
  }

 private:
  static void flip(Bytes& file, std::uint64_t block) {
    file[1024 + (block / 8)] ^= static_cast<std::byte>(1U << (block % 8));
  }
};

// A block of `value`.
[[nodiscard]] inline Bytes block_of(unsigned value) {
  Bytes block(1024);
  std::fill(block.begin(), block.end(), static_cast<std::byte>(value));
  return block;
}

// A read-only file of which every byte says in which 512 bytes it lies; and its fingerprint, as cowloop stores it on a
// machine of 64 bits.
[[nodiscard]] inline Bytes base_of(std::uint64_t bytes) {
  Bytes base(bytes);
  for (std::uint64_t i = 0; i < bytes; ++i)
    base[i] = static_cast<std::byte>(1 + (i / 512 % 251) + (i % 512 == 0));
  return base;
}
[[nodiscard]] inline std::uint64_t fingerprint_bytes(const Bytes& base) {
  std::int32_t result = 0;
  int sums = 0;
  for (std::size_t block = 0; block + 1024 <= base.size() && sums < 4; block += 1024) {
    unsigned sum = 0;
    for (std::size_t i = 0; i < 1024; ++i) sum += std::to_integer<unsigned>(base[block + i]);
    if (sum % 256 == 0) continue;
    result = static_cast<std::int32_t>(static_cast<std::uint32_t>(result) | ((sum % 256) << (8 * sums++)));
  }
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(result));
}

}  // namespace oxbow::cowloop::testing
