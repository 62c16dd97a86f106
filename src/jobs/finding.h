// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "oxbow/range.h"

namespace oxbow {

// What a finding means for whoever owns the layer.
enum class Gravity : std::uint8_t {
  note,        // what a crash may leave behind, or what nothing depends on: nothing is lost
  redundancy,  // one of two copies is bad and the other serves: nothing is lost yet
  damage,      // what is stored cannot be trusted
};
[[nodiscard]] const char* name_of(Gravity gravity) noexcept;

// What a structure says its CRC32C is, and what it is. Thread safety: a value.
struct Checksum {
  std::uint32_t stored = 0;
  std::uint32_t computed = 0;
};

// Something that is not as it should be in a layer. Thread safety: a value.
struct Finding {
  Gravity gravity = Gravity::damage;
  std::string where;  // "state page 3 slot 1"
  std::string why;
  Range stored{};                              // where in the file, bytes
  std::optional<Checksum> checksum = {};       // when it is what is wrong
  std::optional<std::uint64_t> page = {};      // of a state page
  std::optional<std::uint32_t> slot = {};      // of a page or record; of a superblock the copy
  std::optional<std::uint64_t> sequence = {};  // of a superblock or ring record
  std::optional<std::uint64_t> epoch = {};     // as stored, which may be what is wrong
  std::optional<std::uint64_t> flush = {};     // flush number, as stored
  std::vector<Range> lost = {};  // of the device, bytes: what cannot be read, or isn't what was written
  bool mendable = false;         // `oxbow repair` mends it and nothing is lost
};

}  // namespace oxbow
