// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include "device/device.h"
#include "os/ublk_abi.h"
#include "oxbow/range.h"

namespace oxbow::ublk {

enum class Operation : std::uint8_t { read, write, zero, discard, flush };

// What the kernel asks for. Thread safety: a value.
struct Asked {
  Operation operation = Operation::read;
  Range range;
  Durability durability = Durability::with_flush;
  bool allocate = false;  // zeros keep their room
};

// Nothing for a request that nobody here knows.
[[nodiscard]] constexpr std::optional<Asked> understand(const RequestDescriptor& descriptor) noexcept {
  constexpr std::uint64_t most = std::numeric_limits<std::uint64_t>::max() / k_sector_bytes;
  const std::uint32_t flags = descriptor.operation_and_flags;
  Asked asked;
  asked.operation = Operation::flush;
  if ((flags & k_operation_mask) == k_flush) return asked;  // the place that it names is none
  if (descriptor.first_sector > most - descriptor.sectors) return std::nullopt;
  asked.range = {descriptor.first_sector * k_sector_bytes,
                 std::uint64_t{descriptor.sectors} * k_sector_bytes};
  if ((flags & k_fua_flag) != 0) asked.durability = Durability::when_completed;
  switch (flags & k_operation_mask) {
    case k_read:
      asked.operation = Operation::read;
      return asked;
    case k_write:
      asked.operation = Operation::write;
      return asked;
    case k_discard_range:
      asked.operation = Operation::discard;
      return asked;
    case k_write_zeros:
      asked.operation = Operation::zero;
      asked.allocate = (flags & k_no_unmap_flag) != 0;
      return asked;
    default:
      return std::nullopt;
  }
}

// What the kernel is answered: it knows few errors of block devices, and takes some for a wish to try again.
[[nodiscard]] constexpr int error_for_kernel(Operation operation, IoStatus status) noexcept {
  if (status.is_lack_of_room()) return -ENOSPC;
  const bool optional = operation == Operation::zero || operation == Operation::discard;
  if (optional && status.error_number() == EOPNOTSUPP) return -EOPNOTSUPP;
  return -EIO;
}

}  // namespace oxbow::ublk
