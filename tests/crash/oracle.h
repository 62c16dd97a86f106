// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "oxbow/range.h"
#include "sim/sector_pool.h"

namespace oxbow::crash {

// A write, zero or discard, numbered from 1 on for the whole history. 0 is none.
using WriteId = std::uint32_t;
// A moment: grows with everything that is submitted or ends.
using Moment = std::uint64_t;
inline constexpr Moment k_never = UINT64_MAX;
// Marks, in contents, what a base image holds.
inline constexpr WriteId k_base_image = 0xFFFFFF;

enum class ChangeKind : std::uint8_t {
  content,   // bytes that carry the write's number and their place
  zeros,     // a zero, or what a discard covers
  observed,  // what was found after a crash, and counts as written then
};

// Fills `out` with what write `id` puts at byte `offset` of a device: each aligned word of 8 bytes tells, by
// tell_tale(), the write and the place it was meant for; each byte of it looks random.
void fill_content(WriteId id, std::uint64_t offset, std::span<std::byte> out);
struct Tale {
  WriteId id;
  std::uint64_t offset;
};
[[nodiscard]] Tale tell_tale(std::uint64_t word) noexcept;

// Knows what a device may read as, sector by sector and byte by byte, from the durability contract alone: now, and
// after a power loss or a kill. A value may show if no write that has to be there came after it had ended, or after
// a read had returned it. Else requests that overlap in time may come in either order. Thread safety: none.
class Oracle {
 public:
  Oracle() = default;

  // What stands on the device before anything was written; zeros where nothing is set.
  void set_initial(std::uint64_t sector, sim::SectorView bytes);
  // Everything that was written is gone, durably, and the device reads as set_initial() tells next.
  void forget();

  [[nodiscard]] WriteId begin_write(Range range, ChangeKind kind, bool durable);
  void end_write(WriteId id, bool ok);
  [[nodiscard]] Moment begin_flush() { return ++now_; }
  void end_flush(Moment submitted);
  [[nodiscard]] Moment begin_read();
  // What a read, which it ends, may not have returned; nothing when all is well.
  [[nodiscard]] std::optional<std::string> end_read(Moment submitted, std::uint64_t at,
                                                    std::span<const std::byte> bytes);

  // How it ends: a kill leaves everything that had completed, one without live state only what was flushed.
  enum class Crash : std::uint8_t { power_loss, kill, bare_kill };
  // What cannot have been found at byte `at` (a sector border) after a crash at this moment.
  [[nodiscard]] std::optional<std::string> check_after_crash(Crash how, std::uint64_t at,
                                                             std::span<const std::byte> bytes) const;

  // Whether writes that fail are tried again by themselves, from now on.
  void set_retries(bool retries) noexcept { retries_ = retries; }

  // The crash has happened: nothing that is in flight ends any more. What was found afterwards is told by found():
  // after a power loss that is all there is, after a kill the rest may still replace it.
  void crashed(Crash how);
  void found(Crash how, std::uint64_t at, std::span<const std::byte> bytes);

  // The sectors that anything is known of, in order.
  [[nodiscard]] std::vector<std::uint64_t> known_sectors() const;
  [[nodiscard]] std::string describe(WriteId id) const;

 private:
  struct Write {
    Range range;
    ChangeKind kind;
    bool durable;
    bool ok = false;
    bool covered = false;  // by a flush that completed, or by being durable itself
    Moment submitted = 0;
    Moment ended = k_never;
    unsigned life = 0;
  };
  // What a write does to one sector: bytes [from, to) of it.
  struct Entry {
    WriteId id;
    std::uint16_t from;
    std::uint16_t to;
    sim::ContentId content;  // of ChangeKind::observed
    Moment seen = k_never;   // when a read had returned it and nothing else could have been meant
  };
  struct Sector {
    sim::ContentId base = sim::ContentId::zeros;
    Moment base_ended = 0;
    WriteId base_id = 0;
    std::vector<Entry> entries;  // oldest submission first
  };
  // A value that a part of a sector may have: an entry's, or that from before all entries (null).
  struct Candidate {
    const Entry* entry;
    Moment submitted;
    Moment ended;
  };
  // Must be there: for a crash, what is covered; for a read or a kill, what had completed before it.
  struct Firm {
    bool after_crash;
    Moment before;
    bool all_completed = true;  // with after_crash: as after a kill
  };

  // When the entry had taken effect at the latest: a request that ended, or was seen, doesn't change its mind.
  [[nodiscard]] Moment settled(const Entry& entry) const noexcept {
    return std::min(writes_[entry.id].ended, entry.seen);
  }
  void note_seen(std::uint64_t number, sim::SectorView bytes, const Firm& firm);
  [[nodiscard]] bool is_firm(const Write& write, const Firm& firm) const noexcept;
  [[nodiscard]] bool is_replaced(const Sector& sector, Moment ended, unsigned from, unsigned to,
                                 const Firm& firm) const noexcept;
  [[nodiscard]] bool shows(std::uint64_t number, const Sector& sector, const Entry* entry, unsigned from,
                           unsigned to, sim::SectorView bytes) const;
  [[nodiscard]] std::vector<Candidate> matches(std::uint64_t number, const Sector& sector, unsigned from,
                                               unsigned to, sim::SectorView bytes, const Firm& firm) const;
  [[nodiscard]] std::optional<std::string> check_sector(std::uint64_t number, sim::SectorView bytes,
                                                        const Firm& firm, unsigned low, unsigned high) const;
  [[nodiscard]] bool lacks_older(const Sector& sector, const Candidate& shown,
                                 std::span<const std::vector<Candidate>> found,
                                 std::span<const unsigned> borders) const;
  [[nodiscard]] bool is_torn(const Sector& sector, std::span<const std::vector<Candidate>> found,
                             std::span<const unsigned> borders) const;
  [[nodiscard]] std::string complaint(std::uint64_t number, const Sector* sector, unsigned from, unsigned to,
                                      sim::SectorView bytes, const Firm& firm) const;
  void compact(std::uint64_t number, Sector& sector);

  Moment now_ = 0;
  bool retries_ = false;
  unsigned life_ = 0;
  std::vector<Write> writes_{Write{}};
  std::vector<WriteId> uncovered_;  // writes that no flush covers, in flight ones included
  std::vector<Moment> reads_;       // in flight
  std::unordered_map<std::uint64_t, Sector> sectors_;
  sim::SectorPool pool_;
};

}  // namespace oxbow::crash
