// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <span>

namespace oxbow {

// Zeros to send or write from; k_zeros_bytes long.
inline constexpr std::size_t k_zeros_bytes = std::size_t{256} << 10;
[[nodiscard]] std::span<const std::byte> zeros() noexcept;

// Whether a piece of a view stands for a hole.
[[nodiscard]] inline bool is_hole(const iovec& piece) noexcept { return piece.iov_base == zeros().data(); }

}  // namespace oxbow
