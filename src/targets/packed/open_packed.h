// SPDX-License-Identifier: Apache-2.0
#pragma once

// Packed layers by path: the lock, and the chain below.

#include <memory>
#include <string>

#include "targets/packed/packed_target.h"
#include "targets/registry.h"

namespace oxbow {

// Whether `path` names a file that begins as a packed layer does. What cannot be read is none: whoever opens it then
// says why.
[[nodiscard]] bool is_packed(Queue& queue, const std::string& path);

// Opens the packed layer at `path` with its chain, all of it read-only and locked shared; `depth` is its place in the
// chain. Errors: damaged, newer, in use, a base that is missing or another.
[[nodiscard]] Result<std::shared_ptr<PackedTarget>> open_packed(OpenContext& context, const std::string& path,
                                                                unsigned depth = 1);

// `packed PATH [SECTORS]`: a packed layer from 512-byte sector SECTORS (0) on.
[[nodiscard]] Result<MadeTarget> make_packed_target(OpenContext& context, std::span<const std::string> args,
                                                    std::uint64_t length_bytes);

}  // namespace oxbow
