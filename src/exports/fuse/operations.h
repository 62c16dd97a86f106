// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "exports/fuse/fuse3.h"

namespace oxbow::fuse {

// What libfuse calls for each request: translations to Worker's operations. A session's user data is its Worker.
[[nodiscard]] const fuse_lowlevel_ops& operations() noexcept;

}  // namespace oxbow::fuse
