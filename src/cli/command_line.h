// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace oxbow {

// The whole of the `oxbow` command. Returns the exit status: 0 done, 1 failed, 2 wrong usage.
[[nodiscard]] int run_command_line(int argc, char** argv);

}  // namespace oxbow
