// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
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
// without a name, or else the first. Exports stay where they are, and more may come.
// Thread safety: find, find_or_make and all from any thread; the rest before any client is there.
class Exports {
 public:
  [[nodiscard]] static Result<Exports> make(std::vector<Export> exports);

  // Makes an export of a name that clients ask for and that there is none of, or says why not. Called by the thread
  // that serves the client, one call at a time.
  using Maker = std::function<std::expected<Export, std::string>(std::string_view name)>;
  void make_on_demand(Maker maker);

  // Null when there is none of that name.
  [[nodiscard]] const Export* find(std::string_view name) const noexcept;
  // Of a client that is about to use it; the error is why there is none, and may be empty.
  [[nodiscard]] std::expected<const Export*, std::string> find_or_make(std::string_view name) const;
  [[nodiscard]] std::vector<const Export*> all() const;

 private:
  struct State;
  explicit Exports(std::vector<Export> exports);
  [[nodiscard]] const Export* find_locked(std::string_view name) const noexcept;
  std::shared_ptr<State> state_;
};

}  // namespace oxbow::nbd
