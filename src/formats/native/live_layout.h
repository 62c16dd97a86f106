// SPDX-License-Identifier: Apache-2.0
#pragma once

// The bytes of a layer's live state: the states of its clusters in a file on tmpfs, which a killed process leaves
// behind. They never outlive the boot. docs/format.md specifies them beside the layer's own.
//
//   header │ page 0 │ page 1 │ …
//   0        4 KiB    8 KiB

#include "formats/native/layout.h"

namespace oxbow::native {

inline constexpr std::array<char, 8> k_live_magic{'O', 'X', 'B', 'O', 'W', 'L', 'I', 'V'};
inline constexpr std::uint32_t k_live_version = 1;
inline constexpr std::uint64_t k_live_page_bytes = 4096;
inline constexpr std::uint64_t k_leaves_per_live_page = 56;

struct LiveHeader {
  std::array<char, 8> magic;
  std::uint32_t crc;  // CRC32C of bytes 12 to 63: of what never changes
  std::uint32_t version;
  Uuid uuid;             // of the layer
  std::uint64_t device;  // st_dev and st_ino of the layer's file
  std::uint64_t inode;
  Uuid boot_id;
  // What changes, each with one atomic store.
  std::uint64_t epoch;       // of the session whose states these are; 0: none yet, they say nothing
  std::uint64_t next_epoch;  // of the session that is beginning, or `epoch`
  std::uint64_t dead;        // 1: a write of metadata or a barrier failed; the disk counts, not this
  std::array<std::uint8_t, 4008> reserved;
};
static_assert(sizeof(LiveHeader) == k_live_page_bytes &&
              std::has_unique_object_representations_v<LiveHeader>);
static_assert(offsetof(LiveHeader, uuid) == 16 && offsetof(LiveHeader, epoch) == 64);

// Leaves in the order in which they were first needed. A leaf counts when its owner is set, which comes last.
struct LivePage {
  std::array<std::uint64_t, k_leaves_per_live_page> owners;  // 1 + number of the leaf in the layer; 0: free
  std::array<std::uint64_t, k_words_per_leaf> reserved;
  std::array<LeafWords, k_leaves_per_live_page> leaves;
};
static_assert(sizeof(LivePage) == k_live_page_bytes && std::has_unique_object_representations_v<LivePage>);
static_assert(offsetof(LivePage, leaves) == 512);

}  // namespace oxbow::native
