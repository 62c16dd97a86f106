// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/page_table.h"

#include <bit>

namespace oxbow {

bool PageTable::take_dirty(std::size_t limit, bool clear, std::vector<std::uint32_t>& taken) {
  for (std::size_t word = 0; word < dirty_.size(); ++word) {
    std::uint64_t bits = dirty_[word].load(std::memory_order_seq_cst);
    while (bits != 0) {
      if (taken.size() == limit) return true;
      const std::uint64_t page = (word * 64) + static_cast<std::uint64_t>(std::countr_zero(bits));
      bits &= bits - 1;
      flags_[page].fetch_or(k_in_flight, std::memory_order_acq_rel);
      if (clear) clear_dirty(page);
      taken.push_back(static_cast<std::uint32_t>(page));
    }
  }
  return false;
}

}  // namespace oxbow
