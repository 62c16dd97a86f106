// SPDX-License-Identifier: Apache-2.0
#pragma once

// The blocks of a cowfile are written into its read-only file, after which the cowfile has none any more:
//
//   head: a merge has begun → B → blocks are written into the read-only file → B →
//   head: the read-only file's fingerprint as it is now → B → head: no merge, kept in order → B →
//   bitmap cleared → B → head: clean, no blocks → B → their room is given back
//
// Until the second of these heads is durable the cowfile has all of its blocks, and a merge that is cut off is begun
// anew by the next one. From then on both have the same contents, so that it doesn't matter which bits are cleared.

#include <cstdint>
#include <memory>
#include <string>

#include "formats/cowloop/head.h"
#include "jobs/cowloop/open_cowfile.h"
#include "jobs/hash_base.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow::cowloop {

enum class Afterwards : std::uint8_t {
  empty,  // the cowfile has no blocks
  keep,   // it has them still, as cowmerge leaves it
};

// Merges a cowfile, which is clean or whose merge was cut off and has all of its blocks, into its read-only file; both
// are held by the caller alone. Blocking.
[[nodiscard]] Result<void> merge_into_base(Queue& queue, Store& cowfile, const Head& head, Store& base,
                                           Afterwards afterwards, const TellProgress& progress);

// A merge of files, held locked from open() on. Thread safety: one thread.
class CowfileMerge {
 public:
  // Opens both and holds them against each other. Refused: a cowfile that is dirty, packed, damaged or of another
  // read-only file, and files that anybody has in use. Nothing is changed.
  [[nodiscard]] static Result<std::unique_ptr<CowfileMerge>> open(Queue& queue, const std::string& base,
                                                                  const std::string& cowfile);

  [[nodiscard]] const Head& head() const noexcept { return head_; }
  // How many blocks it is going to write.
  [[nodiscard]] std::uint64_t blocks() const noexcept { return blocks_; }
  [[nodiscard]] std::uint64_t base_bytes() const noexcept { return base_->size(); }
  // One that was cut off.
  [[nodiscard]] bool resumed() const noexcept { return head_.merging.has_value(); }
  // Once. When it fails the cowfile still has its blocks, and a new merge goes on.
  [[nodiscard]] Result<void> run(Afterwards afterwards, const TellProgress& progress);

 private:
  explicit CowfileMerge(Queue& queue) : queue_(queue) {}

  Queue& queue_;
  std::shared_ptr<FileStore> cowfile_;
  std::shared_ptr<FileStore> base_;
  Head head_;
  std::uint64_t blocks_ = 0;
};

}  // namespace oxbow::cowloop
