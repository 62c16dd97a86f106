// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sim/sim_disk.h"

namespace oxbow::crash {

// Reads a pair as cowloop 3.1 does, from its specification alone: it knows nothing of oxbow's own codec. Thread safety:
// none.
class Original {
 public:
  // Both are borrowed.
  Original(const sim::SimDisk& read_only, const sim::SimDisk& cowfile)
      : read_only_(read_only), cowfile_(cowfile) {}

  // What cowloop doesn't know: a dirty file with all ones for the number of blocks, whose bitmap was kept in order.
  enum class Mark : std::uint8_t { refused, accepted };
  // Why it isn't opened; nothing when it is.
  [[nodiscard]] std::optional<std::string> open(Mark mark);
  // What the device shows from byte `at` on. Only when it was opened.
  void read(std::uint64_t at, std::span<std::byte> out) const;

 private:
  [[nodiscard]] std::uint64_t number(std::uint64_t at, unsigned bytes) const;
  [[nodiscard]] std::byte byte_of_cowfile(std::uint64_t at) const;
  [[nodiscard]] std::uint64_t fingerprint(unsigned long_bytes) const;
  [[nodiscard]] bool has(std::uint64_t block) const;

  const sim::SimDisk& read_only_;
  const sim::SimDisk& cowfile_;
  unsigned long_bytes_ = 8;  // of the machine that wrote it
  std::uint64_t mapsize_ = 0;
  std::uint64_t doffset_ = 0;
  std::uint64_t rdoblocks_ = 0;
  std::vector<std::byte> bitmap_;
};

}  // namespace oxbow::crash
