// SPDX-License-Identifier: Apache-2.0
#include "crash/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace oxbow::crash {

using sim::Chooser;

// One place for a request; used again when its request has ended. Thread safety: that of its workload.
struct Workload::Request : Io {
  Request(Workload& in, Queue& owner)
      : Io(owner,
           [](Io& self) noexcept {
             auto& request = static_cast<Request&>(self);
             request.workload.ended(request, request.status);
           }),
        workload(in) {}

  Workload& workload;
  bool busy = false;
  Ask ask = Ask::read;
  Range range;
  bool durable = false;
  bool allocate = false;
  bool after_failure = false;  // submitted when the device had failed already
  std::uint64_t pause = 0;     // submitted in that pause for lack of room; 0: in none
  WriteId id = 0;
  Moment since = 0;
  std::vector<std::byte> bytes;
};

Workload::Workload(Chooser& chooser, Oracle& oracle, const Shape& shape, Stack& stack,
                   std::uint32_t cluster_shift, Trouble trouble)
    : chooser_(chooser),
      oracle_(oracle),
      shape_(shape),
      habits_(draw_habits(chooser, shape.windows)),
      stack_(stack),
      cluster_(std::uint64_t{1} << cluster_shift),
      trouble_(trouble) {
  for (unsigned i = 0; i < shape.depth; ++i)
    requests_.push_back(std::make_unique<Request>(*this, stack.queue()));
}

Workload::~Workload() = default;

void Workload::complain(std::string text) {
  if (!violation_ && !frozen_) violation_ = std::move(text);
}

Workload::Request* Workload::idle_request() {
  const auto found = std::ranges::find_if(requests_, [](const auto& each) { return !each->busy; });
  return found == requests_.end() ? nullptr : found->get();
}

Workload::Request* Workload::wait_for_idle_request() {
  Request* request = idle_request();
  while (request == nullptr && (stack_.queue().step() || let_time_pass())) request = idle_request();
  return request;
}

void Workload::run(unsigned count) {
  for (unsigned i = 0; i < count && !frozen_ && !violation_; ++i) {
    while (!frozen_ && (idle_request() == nullptr || chooser_.chance(40))) {
      if (!stack_.queue().step() && !let_time_pass()) break;
    }
    Request* request = idle_request();
    if (request == nullptr) return complain("all requests are in flight and nothing will ever happen");
    if (!frozen_) submit(*request);
  }
}

// Time passes for a device that waits for room: it looks for some, and now and then there is some. Whether it waits.
bool Workload::let_time_pass() {
  if (trouble_ != Trouble::full_paused || !stack_.device().room()) return false;
  if (frozen_) {
    stack_.device().give_up_waiting();
    return true;
  }
  if (chooser_.chance(30)) make_room();
  stack_.device().look_for_room();
  return true;
}

void Workload::give_up() {
  given_up_ = true;
  stack_.device().give_up_waiting();
}

void Workload::drain() {
  do {
    stack_.queue().drain();
  } while (let_time_pass());
  for (const auto& each : requests_) {
    if (!each->busy) continue;
    frozen_ = false;
    complain(fmt::format("a request never ended: {:#x}+{:#x}", each->range.offset, each->range.length));
  }
}

void Workload::read_all() {
  for (const Range& window : shape_.windows) {
    for (std::uint64_t done = 0; done < window.length && !frozen_ && !violation_;) {
      const Range piece = window.without_prefix(done).prefix(chooser_.between(1, 40) * k_sector_bytes);
      Request* request = wait_for_idle_request();
      if (request == nullptr) return complain("all requests are in flight and nothing will ever happen");
      submit_read(*request, piece);
      done += piece.length;
    }
  }
  drain();
}

Habits draw_habits(Chooser& chooser, const std::vector<Range>& windows) {
  static constexpr std::array k_shares{
      Shares{.zero = 10, .discard = 10, .flush = 15, .read = 15, .durable = 15},
      Shares{.zero = 5, .discard = 5, .flush = 40, .read = 5, .durable = 10},
      Shares{.zero = 10, .discard = 5, .flush = 5, .read = 5, .durable = 60},
      Shares{.zero = 15, .discard = 40, .flush = 10, .read = 10, .durable = 10},
      Shares{.zero = 5, .discard = 15, .flush = 5, .read = 40, .durable = 5},
  };
  Habits habits{k_shares[chooser.chance(50) ? 0 : chooser.below(k_shares.size())], windows};
  if (windows.size() > 1 && chooser.chance(40)) habits.windows = {windows[chooser.below(windows.size())]};
  return habits;
}

Workload::Ask Workload::draw_ask() {
  std::uint64_t drawn = chooser_.below(100);
  const auto is = [&drawn](unsigned percent) {
    const bool here = drawn < percent;
    drawn -= here ? 0 : percent;
    return here;
  };
  if (is(habits_.shares.zero)) return Ask::zero;
  if (is(habits_.shares.discard)) return Ask::discard;
  if (is(habits_.shares.flush)) return Ask::flush;
  return is(habits_.shares.read) ? Ask::read : Ask::write;
}

// Sectors, whole clusters, parts of them, and odd bytes; often where clusters meet.
Range Workload::draw_range() {
  const Range& window = habits_.windows[chooser_.below(habits_.windows.size())];
  const std::uint64_t unit = chooser_.chance(35) ? cluster_ : chooser_.chance(75) ? k_sector_bytes : 1;
  std::uint64_t at = window.offset + chooser_.below(window.length);
  if (chooser_.chance(30)) at = at / cluster_ * cluster_;
  at = std::max(at / unit * unit, window.offset);
  const std::uint64_t largest = unit == cluster_ ? 3 : unit == 1 ? cluster_ + 700 : 2 * cluster_ / unit;
  std::uint64_t length = unit * chooser_.between(1, largest);
  length = std::min({length, window.end() - at, std::uint64_t{24 * 1024}});
  return {at, length};
}

// The whole clusters of a range; the last one of the device may be short.
Range Workload::discarded(Range range) const {
  const std::uint64_t first = (range.offset + cluster_ - 1) / cluster_ * cluster_;
  std::uint64_t end = range.end() / cluster_ * cluster_;
  if (range.end() == stack_.device().size()) end = range.end();
  return first < end ? Range{first, end - first} : Range{range.offset, 0};
}

void Workload::submit_read(Request& request, Range range) {
  request.ask = Ask::read;
  request.range = range;
  request.durable = false;
  request.bytes.assign(range.length, std::byte{0x5A});
  request.since = oracle_.begin_read();
  count_in(request);
}

void Workload::submit(Request& request) {
  const Ask ask = draw_ask();
  const Range range = draw_range();
  if (ask == Ask::read) return submit_read(request, range);
  request.ask = ask;
  request.range = range;
  request.durable = ask != Ask::flush && chooser_.chance(habits_.shares.durable);
  request.allocate = ask == Ask::zero && chooser_.chance(40);
  if (ask == Ask::flush) {
    request.range = {};
    request.since = oracle_.begin_flush();
  } else if (ask == Ask::write) {
    request.id = oracle_.begin_write(range, ChangeKind::content, request.durable);
    request.bytes.resize(range.length);
    fill_content(request.id, range.offset, request.bytes);
  } else {
    const Range zeroed = ask == Ask::zero ? range : discarded(range);
    request.id = oracle_.begin_write(zeroed, ChangeKind::zeros, request.durable);
  }
  count_in(request);
}

void Workload::count_in(Request& request) {
  static constexpr std::string_view k_names[] = {"WRITE", "ZERO", "DISCARD", "FLUSH", "READ"};
  request.busy = true;
  request.after_failure = sticky_;
  request.pause = stack_.pause();
  const std::uint64_t number = request.ask == Ask::read || request.ask == Ask::flush ? 0 : request.id;
  if (sim::Trace& trace = stack_.queue().trace(); trace.recording()) {
    trace.remark(fmt::format("-> {}{}{} #{} {:#x}+{:#x}", k_names[static_cast<std::size_t>(request.ask)],
                             request.durable ? " FUA" : "", request.allocate ? " NO_HOLE" : "", number,
                             request.range.offset, request.range.length));
  }
  stack_.queue().trace().note(k_names[static_cast<std::size_t>(request.ask)], request.durable ? "FUA" : "",
                              request.range.offset, request.range.length);
  const Progress progress = send(request);
  if (progress.is_done()) ended(request, progress.status());
}

Progress Workload::send(Request& request) {
  Device& device = stack_.device();
  const Durability durability = request.durable ? Durability::when_completed : Durability::with_flush;
  switch (request.ask) {
    case Ask::write:
      return device.write(request, request.range.offset, request.bytes, durability);
    case Ask::zero:
      return device.zero(request, request.range, request.allocate, durability);
    case Ask::discard:
      return device.discard(request, request.range, durability);
    case Ask::flush:
      return device.flush(request);
    case Ask::read:
      break;
  }
  return device.read(request, request.range.offset, request.bytes);
}

void Workload::ended(Request& request, IoStatus status) {
  if (!request.busy) return complain("a request ended twice");
  request.busy = false;
  if (frozen_) return;
  stack_.queue().trace().note("answer", "", request.range.offset,
                              static_cast<std::uint64_t>(status.error_number()));
  if (sim::Trace& trace = stack_.queue().trace(); trace.recording()) {
    trace.remark(fmt::format("<- {} #{} {:#x}: {}", static_cast<int>(request.ask),
                             request.ask == Ask::flush ? 0 : request.id, request.range.offset,
                             status.error_number()));
  }
  check_status(request, status);
  if (request.ask == Ask::read) return check_read(request, status);
  if (request.ask == Ask::flush) {
    if (status.ok()) oracle_.end_flush(request.since);
  } else {
    oracle_.end_write(request.id, status.ok());
  }
  // The reason of a failed flush stays; a write without FUA may have failed alone.
  if (!status.ok() && request.ask == Ask::flush) sticky_ = true;
  if (!status.ok() && request.durable) maybe_sticky_ = true;
}

void Workload::check_read(const Request& request, IoStatus status) {
  const std::size_t length = status.ok() ? request.bytes.size() : 0;
  auto wrong = oracle_.end_read(request.since, request.range.offset, std::span(request.bytes).first(length));
  if (wrong) complain(std::move(*wrong));
}

void Workload::check_status(const Request& request, IoStatus status) {
  static constexpr std::string_view k_names[] = {"write", "zero", "discard", "flush", "read"};
  const auto name = k_names[static_cast<std::size_t>(request.ask)];
  if (status.ok()) {
    const bool flushes = request.ask == Ask::flush || (request.durable && !request.range.empty());
    if (flushes && request.pause != 0 && request.pause == stack_.pause() && !given_up_)
      complain(fmt::format("a {} was answered in the pause in which it was asked for", name));
    if (request.after_failure && request.ask != Ask::read) {
      complain(fmt::format("a {} succeeded although the device had failed before", name));
    }
    return;
  }
  bool may_fail = trouble_ == Trouble::anything;
  if (request.ask == Ask::read) {
    may_fail = may_fail || trouble_ == Trouble::base_reads;
  } else if (request.ask == Ask::flush) {
    may_fail = may_fail || may_have_failed();
  } else {
    const bool waits = trouble_ == Trouble::full_paused && !given_up_;
    may_fail = may_fail || (trouble_ != Trouble::none && !waits);
  }
  if (may_fail) return;
  complain(fmt::format("a {} of {:#x}+{:#x} failed with {} ({})", name, request.range.offset,
                       request.range.length, std::strerror(status.error_number()),
                       oracle_.describe(request.id)));
}

}  // namespace oxbow::crash
