// SPDX-License-Identifier: Apache-2.0
#pragma once

// What whoever opens a pair of cowloop - a read-only file and a cowfile - holds against each other first. Everything
// blocks and writes nothing; each error names the cowfile, and `what` begins it ("cannot open cowfile").

#include <cstdint>
#include <string>

#include "formats/cowloop/head.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/file/file_store.h"
#include "stores/store.h"

namespace oxbow::cowloop {

// Refuses what isn't a regular file.
[[nodiscard]] Result<void> check_regular(const std::string& what, const FileStore& cowfile);

// The head of a cowfile, in any state. Refused: a file too short for it, and whatever parse() doesn't accept.
[[nodiscard]] Result<Head> read_head(Queue& queue, const std::string& what, Store& cowfile);

// Refuses a file that ends inside its bitmap, or inside the blocks of a packed one.
[[nodiscard]] Result<void> check_length(const std::string& what, Store& cowfile, const Head& head);

enum class IfDirty : std::uint8_t {
  refuse,  // unless it was kept in order
  accept,
};
// Refuses a cowfile by its state: packed, dirty, or with a merge that was cut off. `way_out` ends the sentence about a
// dirty one ("oxbow repair completes it").
[[nodiscard]] Result<void> check_state(const std::string& what, const Store& cowfile, const Head& head,
                                       IfDirty if_dirty, const std::string& way_out);

// How many blocks a read-only file has. Refused: one without a whole block, and one with more than a layout can have.
[[nodiscard]] Result<std::uint64_t> base_blocks(const std::string& what, const Store& base, Layout layout);

// The fingerprint of a read-only file. Holes are not read.
[[nodiscard]] Result<std::uint32_t> fingerprint_of(Queue& queue, const std::string& what, Store& base);
// The same of the blocks alone that are not in the cowfile: Head::merging.
[[nodiscard]] Result<std::uint32_t> fingerprint_of_rest(Queue& queue, const std::string& what, Store& base,
                                                        Store& cowfile, const Head& head);

// Refuses a read-only file that isn't the one of the cowfile: another number of blocks, or another fingerprint. Of a
// cowfile whose merge was cut off it is that of the blocks that it doesn't have.
[[nodiscard]] Result<void> check_base(Queue& queue, const std::string& what, Store& cowfile, const Head& head,
                                      Store& base);

// Writes the head into its block of the file. Nothing is synced.
[[nodiscard]] Result<void> write_head(Queue& queue, const std::string& what, Store& cowfile,
                                      const Head& head);
// Makes the empty file `cowfile` a fresh cowfile: its head, and a bitmap that is a hole. Nothing is synced.
[[nodiscard]] Result<void> write_fresh(Queue& queue, const std::string& what, Store& cowfile,
                                       const Head& head);

// What of a read-only file is not part of the device because it is less than a block; 0 for none. To be warned of.
[[nodiscard]] constexpr std::uint64_t cut_off_bytes(std::uint64_t base_bytes) noexcept {
  return base_bytes % k_block_bytes;
}

}  // namespace oxbow::cowloop
