// SPDX-License-Identifier: Apache-2.0
#include "targets/cow/backing.h"

#include <algorithm>

namespace oxbow {

Step Backing::locate(Range range, Extents& out) const noexcept {
  std::uint64_t done = 0;
  if (range.offset < visible_) {
    const Range shown = range.prefix(visible_ - range.offset);
    const std::size_t first = out.size();
    const Step step = base_->locate(shown, out);
    if (step.answer != Answer::ready) return step;
    for (std::size_t i = first; i < out.size(); ++i) ++out[i].layer;
    done = step.length;
    if (done < shown.length) return Step::ready(done);
  }
  if (done < range.length && !out.full()) {
    out.push_back({.length = range.length - done,
                   .kind = Kind::zero,
                   .layer = 1,
                   .store = nullptr,
                   .at = 0,
                   .nowhere = true});
    done = range.length;
  }
  return Step::ready(done);
}

}  // namespace oxbow
