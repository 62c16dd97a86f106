// SPDX-License-Identifier: Apache-2.0
#include "stores/ram/page_map.h"

#include <sys/mman.h>

#include <cerrno>
#include <utility>

namespace oxbow {
namespace {

std::uint64_t map_bytes(std::uint64_t pages) noexcept {
  const std::uint64_t words = (pages + k_ram_group_pages - 1) / k_ram_group_pages;
  return std::max<std::uint64_t>(words, 1) * sizeof(std::uint64_t);
}

}  // namespace

int PageMap::init(std::uint64_t pages) noexcept {
  std::expected<Mapping, int> mapping = Mapping::anonymous(map_bytes(pages));
  if (!mapping) return mapping.error();
  mapping_ = std::move(*mapping);
  words_ = reinterpret_cast<std::uint64_t*>(mapping_.data());
  return 0;
}

int PageMap::grow(std::uint64_t pages) noexcept {
  if (map_bytes(pages) <= mapping_.size()) return 0;
  const int error = mapping_.grow(map_bytes(pages));
  if (error == 0) words_ = reinterpret_cast<std::uint64_t*>(mapping_.data());
  return error;
}

int PageMap::wipe() noexcept {
  return ::madvise(mapping_.data(), mapping_.size(), MADV_DONTNEED) == 0 ? 0 : errno;
}

std::uint64_t PageMap::run_end(std::uint64_t page, std::uint64_t end, bool present) const noexcept {
  while (page < end) {
    const std::uint64_t word = load(page / k_ram_group_pages);
    const std::uint64_t differing = (present ? ~word : word) >> (page % k_ram_group_pages);
    if (differing != 0) return std::min(end, page + static_cast<unsigned>(std::countr_zero(differing)));
    page = (page / k_ram_group_pages + 1) * k_ram_group_pages;
  }
  return end;
}

std::uint64_t PageMap::count_absent(Range range) const noexcept {
  std::uint64_t absent = 0;
  while (!range.empty()) {
    const GroupPiece piece = first_piece(range);
    absent += static_cast<unsigned>(std::popcount(piece.touched() & ~load(piece.group)));
    range = range.without_prefix(piece.range.length);
  }
  return absent;
}

}  // namespace oxbow
