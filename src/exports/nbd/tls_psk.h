// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "exports/nbd/tls_files.h"

namespace oxbow::nbd {

// Users and the keys that they share with the server. A name is any bytes; a key has at least 16.
using PskKeys = std::map<std::string, Secret, std::less<>>;

// One user per line: NAME:KEY, or #NAME:KEY with the name in hexadecimal like the key, as psktool writes it. Empty
// lines are skipped. Errors name `path`, the line and the reason.
[[nodiscard]] Result<PskKeys> parse_psk(std::string_view text, const std::string& path);

}  // namespace oxbow::nbd
