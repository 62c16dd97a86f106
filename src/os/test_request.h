// SPDX-License-Identifier: Apache-2.0
#pragma once

// For tests: a request whose end is looked at later.

#include "os/io.h"

namespace oxbow {

// Knows how it ended. Thread safety: none.
struct Request : Io {
  explicit Request(Queue& owner)
      : Io(owner, [](Io& self) noexcept {
          auto& request = static_cast<Request&>(self);
          request.answered(Progress::done(request.status));
        }) {}
  void answered(Progress progress) {
    if (!progress.is_done()) return;
    ended = true;
    result = progress.status();
  }
  bool ended = false;
  IoStatus result;
};

}  // namespace oxbow
