// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "os/fixed.h"

namespace oxbow {

class Store;

// What a piece of a device is made of.
enum class Kind : std::uint8_t {
  data,   // in `store` at byte `at`
  zero,   // reads as zeros; nothing is stored
  error,  // cannot be read; `at` is the errno value
};

// `length` bytes (never 0) that are alike. `layer` counts down from the top: 0 is the device's own, 1 its
// base, and so on. The store is borrowed from the target that answered and lives as long as it does. Thread
// safety: a value.
struct Extent {
  std::uint64_t length;
  Kind kind;
  std::uint8_t layer;
  Store* store;
  std::uint64_t at;
  bool nowhere = false;  // zero: not even a hole somewhere, the chain ends above it
};

inline constexpr std::size_t k_extents_per_answer = 16;
using Extents = Fixed<Extent, k_extents_per_answer>;

}  // namespace oxbow
