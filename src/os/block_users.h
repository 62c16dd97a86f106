// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "oxbow/error.h"

namespace oxbow {

// A use of a block device, or of a partition of it. Thread safety: a value.
struct BlockUser {
  enum class Kind : unsigned char { mount, swap, holder, process };
  Kind kind;
  std::string
      text;  // "mounted at /mnt", "/dev/loop0p2 is swap space", "dm-0 lies on it", "process 7 (dd) has it open"
};

// Who uses the block device `path`, as far as this process may see: mounts, those of other mount namespaces too, swap
// space, devices that lie on it, and other processes that have it open. Fails where there is no such device.
[[nodiscard]] Result<std::vector<BlockUser>> block_users(const std::string& path);

// All of them in one line, the first few by name; empty without any.
[[nodiscard]] std::string to_text(const std::vector<BlockUser>& users);

// Whether `file`, a file or block device, lies on the block device `path` or a partition of it: as such, in a file
// system that is mounted from it, or by devices in between (device-mapper, loop). What can't be found out is no.
[[nodiscard]] bool lies_on(const std::string& file, const std::string& path);

}  // namespace oxbow
