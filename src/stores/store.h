// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "os/io.h"
#include "oxbow/range.h"
#include "stores/extent.h"

namespace oxbow {

enum class ReadMode : std::uint8_t {
  may_wait,
  no_wait,  // answer would_block instead of starting anything that takes longer than a copy from memory
};

enum class WriteMode : std::uint8_t {
  cached,  // durable with the next completed sync()
  // These bytes are durable when it completes (RWF_DSYNC); says nothing of others. Lack of room (ENOSPC, EDQUOT,
  // EFBIG) is found before anything is synced; with any other error, what others wrote may be lost as by a
  // failed sync().
  durable,
};

enum class ZeroMode : std::uint8_t {
  may_punch,  // the place may become a hole
  allocate,   // the place keeps, or gets, room of its own
};

// What is known of a store without reading it. Thread safety: a value.
struct StoreFacts {
  std::string name;  // as describe() says; of a file its absolute path
  std::uint64_t size_bytes = 0;
  std::optional<std::uint64_t> allocated_bytes = std::nullopt;  // the room that it takes
  // The room that is left for it: on its file system, or of its budget.
  std::optional<std::uint64_t> free_bytes = std::nullopt;
  // All the room that there is, taken or left: of the file system, or the budget.
  std::optional<std::uint64_t> total_bytes = std::nullopt;
};

// Bytes of one place: moves them in and out and knows nothing of devices, targets or formats.
//
// Every operation is done or pending (os/io.h) and complete or failed: a store continues short transfers
// itself, and answers EIO for a read that meets an unexpected end. Ranges lie within [0, size()): the caller
// checks. Any byte offset and length is accepted; a store whose medium wants aligned blocks reads, merges and
// writes, and keeps concurrent neighbours apart. Buffers are the caller's and stay valid until the
// completion. Holes read as zeros. Data of a write that completed is seen by every read submitted later. A
// failed write may have left its range old, new or mixed by 512-byte sectors. Thread safety: all operations
// from any thread, each with an Io of the calling thread's queue.
class Store {
 public:
  Store() noexcept = default;
  virtual ~Store() = default;
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;
  Store(Store&&) = delete;
  Store& operator=(Store&&) = delete;

  virtual Progress read(Io& io, std::uint64_t at, std::span<std::byte> out, ReadMode mode) noexcept = 0;
  // Gathered: writes the bytes of io.iov, which the caller has filled and the store may consume, from `at`
  // on.
  virtual Progress write(Io& io, std::uint64_t at, WriteMode mode) noexcept = 0;
  // Afterwards the range reads as zeros.
  virtual Progress zero(Io& io, Range range, ZeroMode mode) noexcept = 0;
  // Gives the room of the range back where the medium can; what it reads as afterwards is zeros where the
  // medium punches holes, else unchanged.
  virtual Progress discard(Io& io, Range range) noexcept = 0;
  // A barrier: everything that completed before this call was submitted is durable when it completes. An
  // error is an error for everything since the last one that succeeded.
  virtual Progress sync(Io& io) noexcept = 0;
  // Whether something that was written since the last sync is known to be lost on its way to the medium, as a sync
  // would tell, without one: what is read may be old again then. An error counts as a failed sync.
  [[nodiscard]] virtual IoStatus written_back() noexcept { return {}; }
  // Room for the range is there afterwards (contents unchanged); ENOSPC now rather than later.
  virtual Progress allocate(Io& io, Range range) noexcept = 0;
  // Grows to `size` bytes; the new part reads as zeros.
  virtual Progress grow(Io& io, std::uint64_t size) noexcept = 0;

  // Which parts of a non-empty range hold data and which are holes (Kind::zero). Answers a prefix: extents
  // are appended to `out` in order, starting at range.offset, as many as fit. Returns the bytes they cover,
  // more than 0. A store that cannot tell answers one data extent. `layer` is 0.
  virtual std::uint64_t extents(Range range, Extents& out) noexcept = 0;

  // The bytes of the range as memory, to be sent or copied from: only of a range that extents() calls data.
  // Empty when it can't be had as memory, or not now. Valid as long as the store. Where views may fault, it is
  // for the kernel to read and for nobody in this process: a touch may be a SIGBUS; and it is right only if the
  // store is not cut short at the time.
  virtual std::span<const std::byte> view(Range range) noexcept = 0;
  // The same for receiving into: only where writing them needs neither room nor a lock. Empty otherwise.
  virtual std::span<std::byte> memory(Range range) noexcept = 0;

  // Whether zero() with `mode` does without writing the zeros as data, but for the edges that are smaller
  // than the medium's unit. False also while that is not known.
  [[nodiscard]] virtual bool zeroes_fast(ZeroMode /*mode*/) noexcept { return false; }
  // Somebody is going to read the range: a hint, which starts what makes it faster and waits for nothing.
  virtual void prefetch(Range /*range*/) noexcept {}

  // Whether view() answers for all that is data, with memory that is always there.
  [[nodiscard]] virtual bool in_memory() const noexcept { return false; }
  [[nodiscard]] virtual bool views_may_fault() const noexcept { return false; }
  // Whether somebody else has made the medium shorter than size(). Asks it, unlike everything else about views.
  [[nodiscard]] virtual bool cut_short() noexcept { return false; }

  // Whether a change of the range, which may take room where it has none yet, can be let go on: ENOSPC when that would
  // leave less free than is to be kept in reserve. Takes and promises nothing.
  [[nodiscard]] virtual IoStatus room(Range /*range*/) noexcept { return {}; }
  // The room that is left for it: on its file system, or of its budget. Asks the kernel. Nothing where that isn't known
  // or has no limit.
  [[nodiscard]] virtual std::optional<std::uint64_t> free_bytes() const noexcept { return std::nullopt; }

  [[nodiscard]] virtual std::uint64_t size() const noexcept = 0;
  [[nodiscard]] virtual bool writable() const noexcept = 0;
  // For people: the path, or what it is.
  [[nodiscard]] virtual std::string describe() const = 0;
  // As of now; may ask the kernel.
  [[nodiscard]] virtual StoreFacts facts() const { return {describe(), size()}; }
};

}  // namespace oxbow
