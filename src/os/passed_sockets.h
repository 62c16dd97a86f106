// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "os/fd.h"
#include "oxbow/error.h"

namespace oxbow {

// The descriptors that a service manager opened for this process and passed on from number 3 on, as
// sd_listen_fds(3) documents it: LISTEN_PID is this process, LISTEN_FDS their number. None when nothing was
// passed, or to another process. They are closed on exec, and the variables are gone afterwards, so that no
// child takes them for its own. Whether they are sockets is for their user to find out. Call it once, before
// there are threads.
[[nodiscard]] Result<std::vector<UniqueFd>> take_passed_sockets();

}  // namespace oxbow
