// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/page_table.h"

#include <bit>

namespace oxbow {

bool PageTable::take_dirty(std::size_t limit, bool clear, std::uint64_t& from,
                           std::vector<std::uint32_t>& taken) {
  for (std::size_t word = from / 64; word < dirty_.size(); ++word) {
    std::uint64_t bits = dirty_[word].load(std::memory_order_seq_cst);
    if (word == from / 64) bits &= ~std::uint64_t{0} << (from % 64);
    while (bits != 0) {
      const std::uint64_t page = (word * 64) + static_cast<std::uint64_t>(std::countr_zero(bits));
      if (taken.size() == limit) {
        from = page;
        return true;
      }
      bits &= bits - 1;
      flags_[page].fetch_or(k_in_flight, std::memory_order_acq_rel);
      if (clear) clear_dirty(page);
      taken.push_back(static_cast<std::uint32_t>(page));
    }
  }
  return false;
}

}  // namespace oxbow
