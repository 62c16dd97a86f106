// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "crash/oracle.h"
#include "crash/shape.h"
#include "crash/stack.h"

namespace oxbow::crash {

// What may go wrong with the disks during one life: with that of the top layer, but for base_reads.
enum class Trouble : std::uint8_t {
  none,
  data_writes,  // writes of data fail now and then; that is never sticky
  full_disk,    // no more room from some moment on; flushes go on working
  anything,     // every kind of call may fail
  base_reads,   // of the base and the layers below; flushes go on working
  full_paused,  // no more room for a while, again and again; changes wait for it and none fails
};

// What is asked for, in percent. Thread safety: a value.
struct Shares {
  unsigned zero;
  unsigned discard;
  unsigned flush;
  unsigned read;     // the rest are writes
  unsigned durable;  // of the changes
};

// What a life is like: what is asked for, and where. Thread safety: a value.
struct Habits {
  Shares shares;
  std::vector<Range> windows;
};
// `windows` or, often, some of them.
[[nodiscard]] Habits draw_habits(sim::Chooser& chooser, const std::vector<Range>& windows);

// Sends random requests to a device, several at a time, and checks every answer against the oracle.
// Thread safety: none.
class Workload {
 public:
  // All are borrowed. `cluster_shift` is the top layer's: what a discard covers depends on it.
  Workload(sim::Chooser& chooser, Oracle& oracle, const Shape& shape, Stack& stack,
           std::uint32_t cluster_shift, Trouble trouble);
  ~Workload();
  Workload(const Workload&) = delete;
  Workload& operator=(const Workload&) = delete;
  Workload(Workload&&) = delete;
  Workload& operator=(Workload&&) = delete;

  // Submits `count` requests, with steps of the simulation in between; some may still be in flight afterwards.
  void run(unsigned count);
  // Steps until nothing is in flight.
  void drain();
  // Reads all windows and checks them.
  void read_all();
  // The crash has happened: answers count no more.
  void freeze() noexcept { frozen_ = true; }
  // The device is about to be closed: what waits for room may fail from now on.
  void give_up();

  // Gives a full disk room again; with Trouble::full_paused.
  std::function<void()> make_room;

  [[nodiscard]] Trouble trouble() const noexcept { return trouble_; }
  [[nodiscard]] bool frozen() const noexcept { return frozen_; }
  // Whether a flush failed: then everything later has to fail too.
  [[nodiscard]] bool failed() const noexcept { return sticky_; }
  // Whether that may be so: a durable change that fails may have been a barrier that fails.
  [[nodiscard]] bool may_have_failed() const noexcept { return sticky_ || maybe_sticky_; }
  [[nodiscard]] const std::optional<std::string>& violation() const noexcept { return violation_; }

 private:
  enum class Ask : std::uint8_t { write, zero, discard, flush, read };
  struct Request;

  [[nodiscard]] Request* idle_request();
  [[nodiscard]] Request* wait_for_idle_request();
  bool let_time_pass();
  void submit(Request& request);
  void submit_read(Request& request, Range range);
  [[nodiscard]] Progress send(Request& request);
  void ended(Request& request, IoStatus status);
  void check_status(const Request& request, IoStatus status);
  void check_read(const Request& request, IoStatus status);
  void count_in(Request& request);
  [[nodiscard]] Ask draw_ask();
  [[nodiscard]] Range draw_range();
  [[nodiscard]] Range discarded(Range range) const;
  void complain(std::string text);

  sim::Chooser& chooser_;
  Oracle& oracle_;
  const Shape& shape_;
  const Habits habits_;
  Stack& stack_;
  std::uint64_t cluster_;
  Trouble trouble_;
  std::vector<std::unique_ptr<Request>> requests_;
  bool frozen_ = false;
  bool sticky_ = false;
  bool maybe_sticky_ = false;
  bool given_up_ = false;
  std::optional<std::string> violation_;
};

}  // namespace oxbow::crash
