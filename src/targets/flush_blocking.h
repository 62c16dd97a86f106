// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "os/queue.h"
#include "targets/plan.h"

namespace oxbow {

// Carries out the rounds of a plan in order, and answers the first error; for a target that closes, while nothing else
// runs. A plan that could not be made answers why. Blocks.
[[nodiscard]] IoStatus flush_blocking(Queue& queue, const FlushPlan& plan);

}  // namespace oxbow
