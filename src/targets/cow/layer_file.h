// SPDX-License-Identifier: Apache-2.0
#pragma once

// Making a layer, and knowing its base again.

#include <cstdint>
#include <string>

#include "formats/native/layout.h"
#include "os/file_identity.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"
#include "targets/target.h"

namespace oxbow {

// What a new layer is to be.
struct LayerDescription {
  std::uint64_t size_bytes = 0;  // of the device; not below the base's
  std::uint32_t cluster_shift = native::k_smallest_cluster_shift;
  std::uint64_t max_size_bytes = 0;  // 0: 16 times the size, at least 16 TiB
  native::Uuid uuid{};               // random
  std::uint64_t salt = 0;            // random
  std::int64_t created_ns = 0;
  native::BaseRecord base{};
  std::string base_path;  // as it is to be recorded
};

// The superblock of a new, clean layer of epoch 1. The error names the field that is out of range.
[[nodiscard]] Result<native::Superblock> describe_layer(const LayerDescription& description);

// Makes an empty `layer` one: grows it to full length, writes both superblocks and makes them durable.
// Blocking.
[[nodiscard]] Result<void> format_layer(Queue& queue, Store& layer, const LayerDescription& description);

// XXH3-128 of the samples of a base (formats/native/codec.h) as it reads through `base`. Blocking.
[[nodiscard]] Result<native::Hash128> sample_base(Queue& queue, Store& base, const native::Uuid& uuid);

// What a layer over it records of a base: a raw one, without its samples, or a layer.
[[nodiscard]] native::BaseRecord base_record(const FileIdentity& identity) noexcept;
[[nodiscard]] native::BaseRecord base_record(const native::Superblock& superblock) noexcept;

// Why `found` is not the base that `recorded` describes, as a sentence that names both sides; empty when it
// is. With `accept_changed_time` a modification time that differs is no reason. The samples of `found` need
// to be set only when everything else agrees.
[[nodiscard]] std::string base_difference(const native::BaseRecord& recorded, const native::BaseRecord& found,
                                          bool accept_changed_time);

}  // namespace oxbow
