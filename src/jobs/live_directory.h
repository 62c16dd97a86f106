// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "targets/cow/live_choice.h"

namespace oxbow {

// Where the live states of layers go. `wanted` is a directory, "off", or nothing: then the run directory where that is
// on tmpfs, else /dev/shm/oxbow-UID, which is made; where neither can be used there is none, and the settings say why.
// Fails when a directory that was named is not on tmpfs, is another user's, or can be written to by others.
[[nodiscard]] Result<LiveSettings> live_settings(const std::optional<std::string>& wanted);

}  // namespace oxbow
