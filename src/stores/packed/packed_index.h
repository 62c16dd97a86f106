// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "formats/packed/codec.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow {

// Whether the file begins as every packed layer does, sound or not.
[[nodiscard]] Result<bool> has_packed_magic(Queue& queue, Store& file);

// Reads and checks the header of a packed layer. Errors say which field of the file is wrong. Blocking.
[[nodiscard]] Result<packed::Header> read_packed_header(Queue& queue, Store& file);

// Reads and checks all of a packed layer but its frames. Takes memory in proportion to what is sound, however much
// the file claims to have. Blocking.
[[nodiscard]] Result<packed::Index> read_packed_index(Queue& queue, Store& file);

}  // namespace oxbow
