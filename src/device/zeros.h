// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <span>

namespace oxbow {

// Zeros to send or write from; k_zeros_bytes long.
inline constexpr std::size_t k_zeros_bytes = std::size_t{256} << 10;
extern const std::array<std::byte, k_zeros_bytes> k_zeros;
[[nodiscard]] inline std::span<const std::byte> zeros() noexcept { return k_zeros; }

// Whether a piece of a view stands for a hole.
[[nodiscard]] inline bool is_hole(const iovec& piece) noexcept { return piece.iov_base == zeros().data(); }

}  // namespace oxbow
