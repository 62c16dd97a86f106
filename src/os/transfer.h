// SPDX-License-Identifier: Apache-2.0
#pragma once

// Synchronous transfers that end with everything moved or with an error: short ones are continued and EINTR
// is none. All from any thread; `rwf` are RWF_ flags as for preadv2(2).

#include <cstddef>
#include <cstdint>
#include <span>

#include "os/iov.h"
#include "oxbow/io_status.h"
#include "oxbow/range.h"

namespace oxbow {

// `bytes` have been moved when `status` came up; all of them when it is ok.
struct Moved {
  std::size_t bytes = 0;
  IoStatus status;
};

// Reads at byte `at`. EIO where the file ends too early; EAGAIN with RWF_NOWAIT where the rest isn't in
// memory.
[[nodiscard]] Moved read_at(int fd, std::uint64_t at, std::span<std::byte> out, int rwf = 0) noexcept;

// The same for the buffers of `iov`, which are consumed.
[[nodiscard]] IoStatus read_all(int fd, std::uint64_t at, IovList& iov, int rwf = 0) noexcept;
[[nodiscard]] IoStatus write_all(int fd, std::uint64_t at, IovList& iov, int rwf = 0) noexcept;
[[nodiscard]] IoStatus write_all(int fd, std::uint64_t at, std::span<const std::byte> bytes,
                                 int rwf = 0) noexcept;

// Writes zeros from memory that is aligned to 4096 bytes, so that it serves O_DIRECT descriptors as well.
[[nodiscard]] IoStatus write_zeros(int fd, Range range) noexcept;

}  // namespace oxbow
