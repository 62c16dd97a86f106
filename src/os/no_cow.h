// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace oxbow {

// On btrfs a file that is overwritten in place has to be marked so while it is empty; elsewhere nothing is to be done.
// Returns the errno value.
[[nodiscard]] int set_no_cow(int fd) noexcept;

}  // namespace oxbow
