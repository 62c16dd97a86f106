// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "oxbow/error.h"

namespace oxbow {
class Device;
}

namespace oxbow::nbd {

// A device under a name, as clients see it. The device is borrowed. Thread safety: a value.
struct Export {
  std::string name;  // empty: only as the default
  Device* device = nullptr;
  std::string description;                     // for people; may be empty
  bool read_only = false;                      // refuses changes, whatever the device allows
  std::uint32_t preferred_block_bytes = 4096;  // a power of two of 512 to 32 MiB, told to clients that ask

  [[nodiscard]] bool writable() const noexcept;
  // What the transmission flags say of it to a client with or without structured replies.
  [[nodiscard]] std::uint16_t transmission_flags(bool structured_replies) const noexcept;
};

// What one server offers: at least one export, names all different. Clients that give no name get the one
// without a name, or else the first. Thread safety: immutable.
class Exports {
 public:
  [[nodiscard]] static Result<Exports> make(std::vector<Export> exports);

  // Null when there is none of that name.
  [[nodiscard]] const Export* find(std::string_view name) const noexcept;
  [[nodiscard]] std::span<const Export> all() const noexcept { return exports_; }

 private:
  explicit Exports(std::vector<Export> exports) noexcept : exports_(std::move(exports)) {}
  std::vector<Export> exports_;
};

}  // namespace oxbow::nbd
