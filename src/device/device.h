// SPDX-License-Identifier: Apache-2.0
#pragma once

// The life of a request: check → locate or plan → move → commit → complete. The one place for the contract's
// checks, for the order of effects and for error mapping; targets only translate, stores only move.

#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "device/gate.h"
#include "device/on_full.h"
#include "os/io.h"
#include "oxbow/error.h"
#include "oxbow/range.h"
#include "stores/extent.h"
#include "targets/target.h"

namespace oxbow {

class Log;
class Task;
struct LatencySnapshot;
struct StatisticsSnapshot;
enum class RequestKind : std::uint8_t;

// When a change has to be durable.
enum class Durability : std::uint8_t {
  with_flush,      // after the next completed flush
  when_completed,  // FUA: when the request itself completes
};

// Whether a zero may do it by writing zeros.
enum class ZeroSpeed : std::uint8_t {
  any,
  fast,  // else it fails with EOPNOTSUPP and changes nothing
};

// Memory that holds what a range reads as, for sending; zeros (device/zeros.h) stand for holes. A lease: the
// bytes stay mapped until the view is destroyed, but a concurrent write may show in them. Thread safety:
// belongs to one thread.
struct ReadView {
  Fixed<iovec, 24> pieces;
  // There is a piece of a file that somebody may cut short: whoever touches it may get SIGBUS, so it is for
  // the kernel to read (sendmsg answers EFAULT), and read() says what went wrong.
  bool may_fault = false;
  // Those files. Where one of them was cut short, the page that it ends in now has zeros behind the end and faults for
  // nobody: so ask Store::cut_short() before each sending.
  Fixed<Store*, 8> files;
  Gate::Pass pass;  // the lease: structure changes wait for its end
  // For statistics: from how many places of the device's own store, and of what is below.
  std::uint32_t own_reads = 0;
  std::uint32_t below_reads = 0;

  void clear() noexcept {
    own_reads = 0;
    below_reads = 0;
    pieces.clear();
    may_fault = false;
    files.clear();
    pass.leave();
  }
};

// Memory of the device to receive a payload into. A lease: structure changes wait for its end. Thread safety: belongs
// to one thread.
struct DirectWrite {
  std::span<std::byte> memory;  // empty: there is none
  Gate::Pass pass;
};

// A virtual block device over one target.
//
// Requests are byte ranges of any alignment. A range beyond the end fails with EINVAL (read) or ENOSPC
// (change), a change of a read-only device with EPERM, an empty range succeeds. After the first failed
// barrier or metadata write every change and flush fails with EIO until the device is opened again. Buffers
// belong to the caller and stay valid until completion. Each request needs an Io of the calling thread's
// queue; many may be in flight per queue. Thread safety: requests from any thread, each on its own queue;
// close() and destruction when nothing is in flight.
class Device {
 public:
  struct Options {
    std::string name;
    bool read_only = false;
    OnFull on_full = OnFull::error;
    Log* log = nullptr;  // borrowed; null: silent
  };

  // Flushes run on `flush_queue`, which the caller keeps polling (a simulation's, or a test's own). Changes that wait
  // for room are tried again when the caller says so: look_for_room().
  Device(std::shared_ptr<Target> target, Options options, Queue& flush_queue);
  // Flushes run on a thread of the device's own, and another one looks for room while changes wait for it.
  Device(std::shared_ptr<Target> target, Options options);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  Device(Device&&) = delete;
  Device& operator=(Device&&) = delete;

  [[nodiscard]] Progress read(Io& io, std::uint64_t at, std::span<std::byte> out) noexcept;
  // `data` must not change until completion.
  [[nodiscard]] Progress write(Io& io, std::uint64_t at, std::span<const std::byte> data,
                               Durability) noexcept;
  // The range reads as zeros afterwards; with `allocate` it keeps or gets room (NO_HOLE).
  [[nodiscard]] Progress zero(Io& io, Range range, bool allocate, Durability,
                              ZeroSpeed = ZeroSpeed::any) noexcept;
  // Whole clusters of the range read as zeros afterwards and give their room back; the rest is unchanged.
  [[nodiscard]] Progress discard(Io& io, Range range, Durability) noexcept;
  // Everything that completed before this call, on any queue, is durable when it completes.
  [[nodiscard]] Progress flush(Io& io) noexcept;

  // Somebody is going to read the range: starts what makes that faster, of its first k_prefetch_bytes, and
  // waits for none of it. EINVAL beyond the end.
  [[nodiscard]] Progress cache(Io& io, Range range) noexcept;
  static constexpr std::uint64_t k_prefetch_bytes = 32U << 20;

  // What the range is made of, as a prefix: appended to `out` (emptied first), holes of the stores shown as
  // zero. More than 0 bytes for a range that is not empty. The stores in it stay valid as long as the device.
  [[nodiscard]] Progress extents(Io& io, Range range, Extents& out) noexcept;

  // Fills `view` (emptied first) with memory that holds the whole range, when all of it can be had as memory
  // at once; else returns false, and read() is the way. The range must be within the device.
  [[nodiscard]] bool view(Queue& queue, Range range, ReadView& view) noexcept;
  // A read of `range` is answered from that view.
  void viewed(Queue& queue, Range range, const ReadView& view) noexcept;
  // Memory to receive a payload for the whole range into, where a write needs nothing but the copy; else
  // empty, and write() is the way. What is put there is seen at once. Call received() when all of it is
  // there, while the lease is held and before the request is answered; without FUA.
  [[nodiscard]] DirectWrite direct(Queue& queue, Range range) noexcept;
  void received(Queue& queue, Range range) noexcept;

  // Structure changes: suspend, replace, resume, by one thread at a time; `queue` is that thread's.
  // Lets no new request begin, those wait, and blocks until none is in flight, no flush runs and every view has been
  // given back. Makes nothing durable: whoever replaces the target closes the old one.
  void suspend(Queue& queue) noexcept;
  // The same, until `gives_up`, which is asked a few times a second while requests are in flight, says so: then nothing
  // is held back, and the answer is false.
  [[nodiscard]] bool suspend_unless(Queue& queue, const std::function<bool()>& gives_up) noexcept;
  // Lets the requests that wait begin, with the target of now.
  void resume() noexcept;
  // Puts `next` in the target's place and returns what was there. Only while suspended. A failure of the device is
  // forgotten: this is a new opening. `read_only` as in Options.
  [[nodiscard]] std::shared_ptr<Target> replace(std::shared_ptr<Target> next, bool read_only) noexcept;

  // --- with OnFull::pause: changes that found no room wait, and with them flushes and durable changes ---

  // Nothing while none waits. From any thread.
  [[nodiscard]] std::optional<RoomStatus> room() const noexcept;
  // Lets one of those that wait try again. From any thread.
  void look_for_room() noexcept;
  // Nobody wants to wait for this request any more, which may be in flight: if it waits for room, or will, it ends with
  // ENOSPC. On the request's thread. `request.impatient` stays set until the caller resets it.
  void hurry(Io& request) noexcept;
  // Those that wait fail with ENOSPC, now and from now on. Before whoever serves the device stops. From any thread.
  void give_up_waiting() noexcept;

  // Makes everything durable that was written. Only while suspended; flushes that come then have nothing to wait for.
  // Blocks; `queue` is the calling thread's. An error is the device's failure.
  [[nodiscard]] IoStatus settle(Queue& queue) noexcept;
  // Has the target leave its medium as a clean end would, after a flush of its own. Only while suspended. Blocks;
  // `queue` is the calling thread's. An error makes the device fail.
  [[nodiscard]] IoStatus tidy_up(Queue& queue) noexcept;
  // The last flush and a clean end. Blocks; `queue` is the calling thread's. Nothing may be in flight, or be
  // asked of the device afterwards, unless it is suspended and gets another target.
  [[nodiscard]] IoStatus close(Queue& queue) noexcept;

  [[nodiscard]] std::uint64_t size() const noexcept { return size_.load(std::memory_order_acquire); }
  [[nodiscard]] bool writable() const noexcept { return writable_.load(std::memory_order_acquire); }
  [[nodiscard]] const std::string& name() const noexcept { return options_.name; }
  // As of now, and kept for the caller: another may take its place meanwhile. From any thread.
  [[nodiscard]] std::shared_ptr<Target> target() const noexcept;
  [[nodiscard]] StatisticsSnapshot statistics() const noexcept;
  // An export tells how long a request took, from its arrival to when its reply was sent.
  void took(Queue& queue, RequestKind kind, std::uint64_t ns) noexcept;
  [[nodiscard]] LatencySnapshot latencies() const noexcept;
  // The errno value of the failure after which every change and flush is refused; 0 while there is none. From any
  // thread.
  [[nodiscard]] int failure() const noexcept;

 private:
  struct Parts;

  Device(std::shared_ptr<Target> target, Options options, Queue* flush_queue);
  [[nodiscard]] IoStatus check_change(Range range) const noexcept;
  [[nodiscard]] Progress counted(Queue& queue, Progress progress) noexcept;
  [[nodiscard]] Progress change(Io& io, Range range, Change change, std::span<const std::byte> data,
                                ZeroSpeed speed = ZeroSpeed::any) noexcept;
  [[nodiscard]] Task run_change(Queue& queue, Gate::Pass pass, const Io& request, Range range, Change change,
                                std::span<const std::byte> data);
  [[nodiscard]] Task read_rest(Queue& queue, Gate::Pass pass, Range range, std::span<std::byte> out);
  [[nodiscard]] Task extents_in(Queue& queue, Gate::Pass pass, Range range, Extents& out);
  [[nodiscard]] Task cache_in(Queue& queue, Gate::Pass pass, Range range);
  // Runs `request`, which is `whose`, once the gate is open again.
  template <typename Request>
  [[nodiscard]] Task when_open(Queue& queue, const Io& whose, Request request);
  // What is left of a change that found no room. Thread safety: a value.
  struct Unfinished {
    Range range;
    Change change;
    std::span<const std::byte> data;
    bool join;
    IoStatus failed;
    Store* full;
  };
  [[nodiscard]] Task change_later(Queue& queue, Gate::Pass& pass, const Io& request, Unfinished left);
  [[nodiscard]] Task flush_after_pause(Queue& queue, Gate::Pass pass, const Io& request);
  [[nodiscard]] Task wait_for_pause(Queue& queue, Gate::Pass& pass, const Io& request);
  [[nodiscard]] Task enter_again(Queue& queue, Gate::Pass& pass);
  [[nodiscard]] static bool append_view(const Extent& extent, ReadView& view) noexcept;

  mutable std::mutex target_mutex_;  // for target() alone: requests look at target_ while they are in
  std::shared_ptr<Target> target_;
  Options options_;
  std::atomic<std::uint64_t> size_;
  std::atomic<bool> writable_;
  std::atomic<bool> settled_{false};  // suspended, and everything that has completed is durable
  std::unique_ptr<Parts> parts_;
};

}  // namespace oxbow
