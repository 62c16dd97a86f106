// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "formats/native/layout.h"
#include "os/queue.h"
#include "oxbow/error.h"
#include "stores/store.h"

namespace oxbow {

// What a scan of a layer's commit ring found. Thread safety: a value.
struct RingScan {
  std::uint64_t last_sequence = 0;  // of the last sound record, 0 without one
  std::uint64_t records = 0;
  std::uint64_t end = 0;  // where the sound records end, relative to the ring's start, bytes
};

// How much of the ring, from its start, was written without a hole, as far as the store can tell holes. Asks the store.
[[nodiscard]] std::uint64_t ring_bytes_written(Store& layer, const native::Superblock& superblock) noexcept;

// `position` is relative to the ring's start. An error ends the scan.
using VisitRecord = std::function<Result<void>(std::uint64_t position, std::span<const std::byte> record)>;

// Tells the records from the ring's start on, in order, up to the first that is not sound or doesn't follow the one
// before: whose epoch falls, or whose sequence isn't the next. Which of them are alive is the caller's to tell. Reads
// up to where the ring's last data is; holes before that are zeros, as copying a file may make of them. Blocking.
[[nodiscard]] Result<RingScan> scan_ring(Queue& queue, Store& layer, const native::Superblock& superblock,
                                         const VisitRecord& visit);

// Tells the sound records behind `scan.end` that were written after those that were found. If one of them is alive,
// then what lies at scan.end is not an append that was cut off: it is damage. Blocking.
[[nodiscard]] Result<void> visit_later_records(Queue& queue, Store& layer,
                                               const native::Superblock& superblock, const RingScan& scan,
                                               const VisitRecord& visit);

}  // namespace oxbow
