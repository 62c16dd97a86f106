// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "cli/command.h"
#include "cli/serve_arguments.h"

namespace oxbow {

// Serves what `arguments` say, in the foreground, in the background or around a command, until it is to end.
// Call it before there are threads. The exit status is that of --run's command where there is one.
[[nodiscard]] ExitStatus run_serve(ServeArguments arguments);

}  // namespace oxbow
