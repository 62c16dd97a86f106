// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "formats/cowloop/head.h"
#include "jobs/finding.h"
#include "jobs/hash_base.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"
#include "targets/cowloop/bitmap_survey.h"

namespace oxbow::cowloop {

// What is known of a cowfile. Thread safety: a value.
struct CowfileInfo {
  std::string path;
  Head head;
  bool gzip = false;  // a packed one, compressed; then no more than the head is known
  std::uint64_t file_bytes = 0;
  std::uint64_t allocated_bytes = 0;
  BitmapSurvey survey;
  std::optional<std::string> contradiction;  // why it can't be as its head says, as the end of a sentence
};
// Locks nothing, so that one that is being served can be looked at: then it is told as it lies in the file. Blocking.
[[nodiscard]] Result<CowfileInfo> cowfile_info(Queue& queue, const std::string& path);

// What a check saw. Thread safety: a value.
struct CowfileCheck {
  Head head;
  std::uint64_t used = 0;         // blocks whose bits are set
  std::uint64_t unmarked = 0;     // with --data: blocks that hold something and whose bits are not set
  std::vector<Finding> findings;  // in the order of the file

  [[nodiscard]] bool damaged() const noexcept;
};

// What else a check does. Thread safety: a value.
struct CheckOptions {
  std::optional<std::string> base;  // the read-only file, to be held against the cowfile
  bool data = false;                // read all blocks
  TellProgress progress;
};
// Checks the cowfile at `path`, which nobody writes to meanwhile. An error when it is none. Blocking.
[[nodiscard]] Result<CowfileCheck> check_cowfile(Queue& queue, const std::string& path,
                                                 const CheckOptions& options);

}  // namespace oxbow::cowloop
