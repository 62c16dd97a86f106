// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>

#include "os/queue.h"
#include "oxbow/error.h"
#include "targets/target.h"

namespace oxbow {

using Sha256 = std::array<std::uint8_t, 32>;
// How far a long job is: bytes done of a total.
using TellProgress = std::function<void(std::uint64_t done, std::uint64_t total)>;

// SHA-256 (FIPS 180-4) of all bytes that `base` reads as. `what` begins an error ("cannot read base"). Blocking.
[[nodiscard]] Result<Sha256> hash_base(Queue& queue, const std::shared_ptr<Target>& base,
                                       const std::string& name, const TellProgress& progress);

// As sha256sum prints it.
[[nodiscard]] std::string to_text(const Sha256& hash);

}  // namespace oxbow
