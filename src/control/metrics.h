// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "control/served.h"

namespace oxbow::control {

// The statistics of all devices in the text format of Prometheus, version 0.0.4 (docs/control.md has the names).
[[nodiscard]] std::string metrics_text(const Served& served);

}  // namespace oxbow::control
