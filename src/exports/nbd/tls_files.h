// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "oxbow/error.h"

namespace oxbow::nbd {

// What a file held; wiped from memory at the end, because it may be a key. Thread safety: none.
class Secret {
 public:
  explicit Secret(std::string bytes) noexcept : bytes_(std::move(bytes)) {}
  ~Secret() { wipe(); }
  Secret(Secret&& other) noexcept : bytes_(std::move(other.bytes_)) { other.wipe(); }
  Secret& operator=(Secret&&) = delete;
  Secret(const Secret&) = delete;
  Secret& operator=(const Secret&) = delete;

  [[nodiscard]] const std::string& bytes() const noexcept { return bytes_; }

 private:
  void wipe() noexcept;
  std::string bytes_;
};

// All of a regular file of at most 1 MiB. Errors are about `what`.
[[nodiscard]] Result<Secret> read_secret(const std::string& what, const std::string& path);

}  // namespace oxbow::nbd
