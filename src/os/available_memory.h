// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

namespace oxbow {

// How many bytes of memory this process may take now before the kernel has to end somebody for it: what the machine
// has available, and no more than what each of the process's control groups (version 1 or 2) has left, the files
// cached on its behalf counted as free. Swap does not count. What can't be read limits nothing. `root` is where /proc
// and /sys are looked for.
[[nodiscard]] std::uint64_t available_memory_bytes(const std::string& root = "");

}  // namespace oxbow
