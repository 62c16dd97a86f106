// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "device/device.h"
#include "os/queue.h"
#include "oxbow/error.h"

namespace oxbow {

// A piece of a device that is alike from end to end. Thread safety: a value.
struct MappedExtent {
  Range range;
  Kind kind;           // what it reads as
  unsigned layer;      // who says so: 0 the device's own layer, 1 its base, and so on
  const Store* store;  // of data: borrowed from the device; else null
  std::uint64_t at;    // of data: where in the store; of an error: the errno value
};

// "data", "zero" or "error".
[[nodiscard]] const char* word(Kind kind) noexcept;
// What the device's own layer has there: as above, or "absent" where it shows what is below.
[[nodiscard]] const char* state_word(const MappedExtent& extent) noexcept;

// Tells all pieces of the device in order, as long as each can be; neighbours differ. An error of `visit` ends it.
[[nodiscard]] Result<void> map_device(Queue& queue, Device& device,
                                      const std::function<Result<void>(const MappedExtent&)>& visit);
// The same from a byte on, and until `visit` answers that it wants no more. Each piece is as it is when it is told: a
// device that is in use changes meanwhile.
[[nodiscard]] Result<void> map_device_from(Queue& queue, Device& device, std::uint64_t from,
                                           const std::function<Result<bool>(const MappedExtent&)>& visit);

}  // namespace oxbow
