// SPDX-License-Identifier: Apache-2.0
#include "crash/original.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <vector>

namespace oxbow::crash {
namespace {

constexpr std::uint64_t k_mapunit = 1024;

unsigned value(std::byte byte) { return std::to_integer<unsigned>(byte); }

}  // namespace

std::byte Original::byte_of_cowfile(std::uint64_t at) const {
  std::byte byte{0};
  if (at < cowfile_.size()) cowfile_.read({at, 1}, {&byte, 1});
  return byte;
}

std::uint64_t Original::number(std::uint64_t at, unsigned bytes) const {
  std::uint64_t result = 0;
  for (unsigned i = bytes; i > 0; --i) result = result << 8 | value(byte_of_cowfile(at + i - 1));
  return result;
}

// `rdofingerprint |= sum << (8 * n)`, where the sum is an `unsigned char` and so becomes an `int`: the fourth may reach
// its sign, which an `unsigned long` of 8 bytes then takes over.
std::uint64_t Original::fingerprint(unsigned long_bytes) const {
  std::uint64_t result = 0;
  unsigned sums = 0;
  std::vector<std::byte> block(k_mapunit);
  for (std::uint64_t n = 0; n < rdoblocks_ && sums < 4; ++n) {
    const std::uint64_t next = read_only_.next_room(n * k_mapunit);  // what lies before it is zeros
    if (next >= rdoblocks_ * k_mapunit) break;
    n = std::max(n, next / k_mapunit);
    read_only_.read({n * k_mapunit, k_mapunit}, block);
    unsigned sum = 0;
    for (const std::byte byte : block) sum = (sum + value(byte)) % 256;
    if (sum == 0) continue;
    result |= std::uint64_t{sum} << (8 * sums++);
    if (sums == 4 && sum >= 128 && long_bytes == 8) result |= 0xFFFFFFFF00000000;
  }
  return result;
}

bool Original::has(std::uint64_t block) const { return (value(bitmap_[block / 8]) >> (block % 8) & 1U) != 0; }

std::optional<std::string> Original::open(Mark mark) {
  if (number(0, 4) != 0x574f437f) return "no cowfile";
  if (number(4, 2) > 1) return "version";
  const std::uint64_t flags = number(6, 2);
  if ((flags & ~std::uint64_t{3}) != 0) return fmt::format("flags {:#x}", flags);
  if ((flags & 2) != 0) return "packed";
  long_bytes_ = number(8, 8) == k_mapunit ? 8 : 4;
  const auto field = [&](unsigned index) { return number(8 + (index * long_bytes_), long_bytes_); };
  if (field(0) != k_mapunit) return fmt::format("mapunit {}", field(0));
  mapsize_ = field(1);
  doffset_ = field(2);
  rdoblocks_ = field(3);
  if (rdoblocks_ != read_only_.size() / k_mapunit) return fmt::format("rdoblocks {}", rdoblocks_);
  if (mapsize_ != ((rdoblocks_ + 7) / 8 + 1023) / 1024 * 1024) return fmt::format("mapsize {}", mapsize_);
  if (doffset_ != (k_mapunit + mapsize_ + 4095) / 4096 * 4096) return fmt::format("doffset {}", doffset_);
  if (cowfile_.size() < k_mapunit + mapsize_) return "a bitmap that is cut short";
  bitmap_.resize(mapsize_);
  cowfile_.read({k_mapunit, mapsize_}, bitmap_);
  if (field(4) != fingerprint(long_bytes_)) return fmt::format("rdofingerprint {:#x}", field(4));
  const std::uint64_t ones = long_bytes_ == 8 ? ~std::uint64_t{0} : 0xFFFFFFFF;
  if ((flags & 1) != 0) {
    if (mark == Mark::accepted && field(5) == ones) return std::nullopt;
    return fmt::format("dirty, cowused {:#x}", field(5));
  }
  std::uint64_t used = 0;
  for (const std::byte byte : bitmap_) used += static_cast<unsigned>(std::popcount(value(byte)));
  if (used != field(5)) return fmt::format("cowused {}, and {} bits", field(5), used);
  for (std::uint64_t at = 512; at < 576; ++at) {
    if (byte_of_cowfile(at) != std::byte{0} && mark == Mark::refused) return "a session in a clean head";
  }
  return std::nullopt;
}

void Original::read(std::uint64_t at, std::span<std::byte> out) const {
  for (std::size_t i = 0; i < out.size();) {
    const std::uint64_t block = (at + i) / k_mapunit;
    const std::uint64_t end = std::min<std::uint64_t>(((block + 1) * k_mapunit) - at, out.size());
    const auto piece = out.subspan(i, end - i);
    if (!has(block)) {
      read_only_.read({at + i, piece.size()}, piece);
    } else {
      const std::uint64_t from = doffset_ + at + i;
      std::ranges::fill(piece, std::byte{0});
      const std::uint64_t there = cowfile_.size() > from ? cowfile_.size() - from : 0;
      const auto stored = piece.first(std::min<std::uint64_t>(piece.size(), there));
      if (!stored.empty()) cowfile_.read({from, stored.size()}, stored);
    }
    i = end;
  }
}

}  // namespace oxbow::crash
