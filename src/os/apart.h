// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include "os/fd.h"

namespace oxbow {

// For calls on a block device that this process answers itself. A killed process keeps its descriptors until its last
// thread has ended, and one that waits for the device ends only when the descriptor that answers it is closed. So they
// are made by a thread that has no descriptor but that of the device, and the process waits for it.

// Runs `work` with `fd` there. Returns what it returns, or an errno value when there is no such thread.
[[nodiscard]] int run_apart(int fd, const std::function<int(int fd)>& work) noexcept;

// Runs `work` there without any descriptor, which may open some, and then `then` here while those are still open.
// Returns 0, or an errno value when there is no such thread; then neither has run.
[[nodiscard]] int run_apart_before(const std::function<void()>& work,
                                   const std::function<void()>& then) noexcept;

// Closes it there. When there is no such thread, here.
void close_apart(UniqueFd fd) noexcept;

}  // namespace oxbow
