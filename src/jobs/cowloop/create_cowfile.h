// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "formats/cowloop/head.h"
#include "os/queue.h"
#include "oxbow/error.h"

namespace oxbow::cowloop {

// A cowfile that is to be made. Thread safety: a value.
struct CreateCowfile {
  std::string base;  // the read-only file: a regular file or a block device
  std::string path;  // must not exist, unless it is an empty file
  Layout layout = Layout::bytes_8;
};

// What was made. Thread safety: a value.
struct CreatedCowfile {
  Head head;
  std::uint64_t cut_off =
      0;  // bytes at the end of the read-only file that are less than a block, and no part of it
};

// Makes a fresh cowfile under a temporary name and gives it its own when it is durable. Blocking.
[[nodiscard]] Result<CreatedCowfile> create_cowfile(Queue& queue, const CreateCowfile& spec);

}  // namespace oxbow::cowloop
