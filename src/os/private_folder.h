// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <utility>

#include "oxbow/error.h"

namespace oxbow {

// A new folder for this user alone in $TMPDIR, or in /tmp without it; goes with the object, when it is empty by then.
// Thread safety: a value.
class PrivateFolder {
 public:
  [[nodiscard]] static Result<PrivateFolder> create();
  PrivateFolder(PrivateFolder&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  PrivateFolder& operator=(PrivateFolder&& other) noexcept {
    std::swap(path_, other.path_);
    return *this;
  }
  PrivateFolder(const PrivateFolder&) = delete;
  PrivateFolder& operator=(const PrivateFolder&) = delete;
  ~PrivateFolder();

  [[nodiscard]] const std::string& path() const noexcept { return path_; }

 private:
  explicit PrivateFolder(std::string path) noexcept : path_(std::move(path)) {}

  std::string path_;
};

}  // namespace oxbow
