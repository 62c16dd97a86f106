// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace oxbow {

enum class LockMode : std::uint8_t { none, shared, exclusive };

// What errors say of a lock that is held elsewhere.
inline constexpr std::string_view k_in_use_reason = "it is in use by another process";

// Takes, converts or (none) gives up this open file's lock: an OFD lock on byte 0, which belongs to the open
// file description, ends with its last descriptor and conflicts with those of every other open file
// description. A conversion is atomic. Never waits. `exclusive` needs a writable descriptor. Returns 0 or the
// errno value: EAGAIN when another holder is in the way; then the lock held before is still held. From any
// thread.
[[nodiscard]] int lock_file(int fd, LockMode mode) noexcept;

}  // namespace oxbow
