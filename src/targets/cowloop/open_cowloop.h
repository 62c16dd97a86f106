// SPDX-License-Identifier: Apache-2.0
#pragma once

// Pairs of cowloop by their paths: locks, live state, and whether the two files belong together.

#include <memory>
#include <string>

#include "targets/cowloop/cowloop_target.h"
#include "targets/registry.h"

namespace oxbow {

// Opens the pair of the read-only file `base` and the cowfile `cowfile`, writable as the context says; both have to be
// there. The cowfile is locked exclusively to write, shared to read, the read-only file shared. A cowfile that is open
// in the context already is answered again, over the same read-only file alone. Errors: what CowloopTarget::open()
// refuses, a cowfile that is in use, live state that can't be used.
[[nodiscard]] Result<std::shared_ptr<CowloopTarget>> open_cowloop(OpenContext& context,
                                                                  const std::string& base,
                                                                  const std::string& cowfile);

// `cowloop RDOFILE COWFILE [SECTORS]`: a pair from 512-byte sector SECTORS (0) on.
[[nodiscard]] Result<MadeTarget> make_cowloop_target(OpenContext& context, std::span<const std::string> args,
                                                     std::uint64_t length_bytes);

}  // namespace oxbow
