// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <expected>

namespace oxbow {

// Which file it is, and when it was last changed. Of a block device `dev` is the device's own number and
// `inode` and `mtime_ns` are 0, so that every node of the device names the same. Thread safety: a value.
struct FileIdentity {
  std::uint64_t dev = 0;
  std::uint64_t inode = 0;
  std::int64_t mtime_ns = 0;  // nanoseconds since 1970
  std::uint64_t size_bytes = 0;
  bool block_device = false;

  // The same file, whatever has been written to it since.
  [[nodiscard]] bool same_file(const FileIdentity& other) const noexcept {
    return dev == other.dev && inode == other.inode && block_device == other.block_device;
  }
};

// Of an open regular file or block device. The error is an errno value: EISDIR for a directory, EINVAL for
// what is neither file nor block device.
[[nodiscard]] std::expected<FileIdentity, int> identify_file(int fd) noexcept;
// The same by name; `size_bytes` of a block device stays 0.
[[nodiscard]] std::expected<FileIdentity, int> identify_path(const char* path) noexcept;

}  // namespace oxbow
