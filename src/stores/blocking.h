// SPDX-License-Identifier: Apache-2.0
#pragma once

// Store operations that wait for their end: for the control path (opening, closing, checking), as run_blocking is.

#include <cstddef>
#include <cstdint>
#include <span>

#include "os/queue.h"
#include "stores/store.h"

namespace oxbow {

[[nodiscard]] inline IoStatus read_blocking(Queue& queue, Store& store, std::uint64_t at,
                                            std::span<std::byte> out) {
  return run_blocking(queue, [&](Io& io) { return store.read(io, at, out, ReadMode::may_wait); });
}

[[nodiscard]] inline IoStatus write_blocking(Queue& queue, Store& store, std::uint64_t at,
                                             std::span<const std::byte> data) {
  return run_blocking(queue, [&](Io& io) {
    // iovec has no const form; stores only read from the list of a write.
    io.iov.push_back({const_cast<std::byte*>(data.data()), data.size()});
    return store.write(io, at, WriteMode::cached);
  });
}

[[nodiscard]] inline IoStatus sync_blocking(Queue& queue, Store& store) {
  return run_blocking(queue, [&](Io& io) { return store.sync(io); });
}

// The same for an on-disk struct, as it is.
template <typename T>
[[nodiscard]] IoStatus read_struct(Queue& queue, Store& store, std::uint64_t at, T& out) {
  return read_blocking(queue, store, at, std::as_writable_bytes(std::span(&out, 1)));
}

template <typename T>
[[nodiscard]] IoStatus write_struct(Queue& queue, Store& store, std::uint64_t at, const T& from) {
  return write_blocking(queue, store, at, std::as_bytes(std::span(&from, 1)));
}

}  // namespace oxbow
