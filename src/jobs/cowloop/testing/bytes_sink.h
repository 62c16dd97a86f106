// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "jobs/cowloop/pack_cowfile.h"

namespace oxbow::cowloop::testing {

// Keeps what is packed. Thread safety: none.
class BytesSink final : public PackedSink {
 public:
  Result<void> add(std::span<const std::byte> bytes) override {
    stream.insert(stream.end(), bytes.begin(), bytes.end());
    return {};
  }
  Result<void> add_zeros(std::uint64_t bytes) override {
    stream.resize(stream.size() + bytes);
    return {};
  }
  std::vector<std::byte> stream;
};

}  // namespace oxbow::cowloop::testing
