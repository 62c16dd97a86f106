// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "os/fd.h"
#include "oxbow/error.h"

namespace oxbow {

// A loop device of the kernel's over a file: direct I/O, sectors of 512 bytes. It goes by itself once this object, or
// its killed process, and all others have closed it. Thread safety: one thread at a time, which must not be one that
// the I/O of the file waits for.
class LoopDevice {
 public:
  struct Options {
    bool read_only = false;
    std::string name = {};  // for programs that ask for it (LOOP_GET_STATUS64); 63 bytes of it are kept
  };

  // Over the file of that path, which the kernel keeps open by itself. Looks for partitions, so it returns after the
  // file was read. A part of a sector at the file's end is left out. It is held by a descriptor with the number of
  // `place`.
  [[nodiscard]] static Result<LoopDevice> make(const std::string& file, UniqueFd place,
                                               const Options& options);

  // "/dev/loop3"
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  // Takes the file's size again.
  [[nodiscard]] Result<void> grow();
  // Holds it by `other`, which is the same device opened again.
  void hold(UniqueFd other) noexcept;
  // Makes durable what the kernel's cache has of it.
  [[nodiscard]] Result<void> sync();
  // Gives it up: it goes, at once or with the last of those who have it open. Whether it was the last.
  [[nodiscard]] bool release() noexcept;

 private:
  LoopDevice(std::string path, UniqueFd held) noexcept : path_(std::move(path)), held_(std::move(held)) {}

  std::string path_;
  UniqueFd held_;
};

}  // namespace oxbow
