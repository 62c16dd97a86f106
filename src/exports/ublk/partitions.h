// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "oxbow/error.h"

namespace oxbow {
class Device;
}

namespace oxbow::ublk {

// Makes block devices of the partitions of `path`, which shows `device`. Looking for them sends requests to it. By the
// kernel's own search, or by partx(8) where the kernel does not search this block device; that knows the tables that
// begin with the mark of a boot sector, GPT included.
[[nodiscard]] Result<void> add_partitions(Device& device, const std::string& path, bool by_kernel);

}  // namespace oxbow::ublk
