// SPDX-License-Identifier: Apache-2.0
// DeviceFiles: the live table.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "jobs/reopen_device.h"
#include "os/log.h"
#include "stores/file/file_store.h"
#include "stores/open_stores.h"
#include "targets/table/table_target.h"

namespace oxbow {
namespace {

using Clock = std::chrono::steady_clock;
using Targets = std::span<const std::shared_ptr<Target>>;

constexpr const char* k_busy = "Device or resource busy";  // as the kernel calls EBUSY
constexpr const char* k_cannot_suspend = "cannot suspend device";
constexpr const char* k_cannot_resume = "cannot resume device";
constexpr const char* k_cannot_load = "cannot load table";

// What it is made of, if it is not null: a table's lines, else itself.
Targets parts_of(const std::shared_ptr<Target>& target) noexcept {
  if (target == nullptr) return {};
  if (const auto* const table = dynamic_cast<const TableTarget*>(target.get())) return table->targets();
  return {&target, 1};
}

bool has(Targets targets, const std::shared_ptr<Target>& part) noexcept {
  return std::ranges::find(targets, part) != targets.end();
}

// Of `target`, what neither of the others has; those may be null.
IoStatus close_parts(Queue& queue, const std::shared_ptr<Target>& target, const std::shared_ptr<Target>& kept,
                     const std::shared_ptr<Target>& also_kept = nullptr) noexcept {
  IoStatus first;
  for (const auto& part : parts_of(target)) {
    if (has(parts_of(kept), part) || has(parts_of(also_kept), part)) continue;
    const IoStatus closed = part->close(queue);
    if (first.ok()) first = closed;
  }
  return first;
}

}  // namespace

Result<void> DeviceFiles::check_not_broken() const {
  if (stopping_.load()) return std::unexpected(refusal("it is about to end"));
  const Standing now = standing();
  if (now.state != State::open)
    return std::unexpected(refusal(now.state == State::closed ? "it is closed" : now.why));
  // What is not durable and was not told would be forgotten with the failure.
  if (opened_.device->failure() != 0)
    return std::unexpected(refusal("it has failed, and has to be served anew first"));
  return {};
}

Result<void> DeviceFiles::hold(Queue& queue, std::chrono::milliseconds limit) {
  Device& device = *opened_.device;
  if (device.room()) return std::unexpected(refusal(waits_for_room()));
  const auto until = Clock::now() + limit;
  if (!device.suspend_unless(queue, [&] { return stopping_.load() || Clock::now() >= until; })) {
    return std::unexpected(
        refusal(stopping_.load()
                    ? std::string("it is about to end")
                    : fmt::format("requests in flight have not ended within {} s: a client has sent half of "
                                  "a request or takes no answers, or the storage doesn't answer",
                                  std::chrono::duration<double>(limit).count())));
  }
  if (device.room()) {  // somebody was just about to
    device.resume();
    return std::unexpected(refusal(waits_for_room()));
  }
  IoStatus settled = device.settle(queue);
  if (settled.ok() && device.target()->untidy()) settled = device.tidy_up(queue);
  if (settled.ok()) return {};
  device.resume();
  return std::unexpected(refusal(std::string("what was written could not be made durable: ") +
                                 std::strerror(settled.error_number())));
}

Result<void> DeviceFiles::suspend(Queue& queue, std::chrono::milliseconds limit) {
  const std::unique_lock alone(changing_, std::try_to_lock);
  if (!alone.owns_lock())
    return std::unexpected(Error(k_cannot_suspend, options_.name, "another change of it is under way"));
  what_ = k_cannot_suspend;
  if (auto whole = check_not_broken(); !whole) return whole;
  if (standing().suspended_since) return {};
  if (auto held = hold(queue, limit); !held) return held;
  const std::lock_guard lock(mutex_);
  standing_.suspended_since = std::chrono::system_clock::now();
  return {};
}

Result<void> DeviceFiles::follow_growth(Queue& queue, FileStore& file) {
  constexpr std::chrono::seconds limit(30);
  const bool suspended = standing().suspended_since.has_value();
  if (!suspended) {
    if (auto held = hold(queue, limit); !held) return held;
  }
  const IoStatus followed = run_blocking(queue, [&](Io& io) { return file.follow_growth(io); });
  if (!suspended) opened_.device->resume();
  if (followed.ok()) return {};
  return std::unexpected(Error::from_errno("cannot open file", file.path(), followed.error_number()));
}

void DeviceFiles::log_unclean(const char* whose, IoStatus closed) const {
  if (closed.ok() || options_.log == nullptr) return;
  options_.log->write(LogLevel::error, "table",
                      fmt::format("{}: a file of the table that {} could not be closed cleanly: {}",
                                  options_.name, whose, std::strerror(closed.error_number())));
}

void DeviceFiles::drop_loaded(Queue& queue, const std::shared_ptr<Target>& next) {
  std::shared_ptr<Target> loaded;
  {
    const std::lock_guard lock(mutex_);
    loaded = std::exchange(standing_.loaded, nullptr);
  }
  if (loaded == nullptr) return;
  const IoStatus closed = close_parts(queue, loaded, opened_.device->target(), next);
  const std::weak_ptr<Target> gone = loaded;
  loaded.reset();
  wait_until_gone(gone);
  log_unclean("was not used", closed);
}

Result<void> DeviceFiles::load(Queue& queue, const std::string& text, const std::string& source) {
  const std::unique_lock alone(changing_, std::try_to_lock);
  if (!alone.owns_lock())
    return std::unexpected(Error(k_cannot_load, options_.name, "another change of it is under way"));
  what_ = k_cannot_load;
  if (auto whole = check_not_broken(); !whole) return whole;
  if (is_ram_) return std::unexpected(refusal("it is a RAM disk, whose contents would be gone"));
  OpenOptions options = options_;
  options.writable = options_.writable && !standing().read_only;
  // They were meant for what was served first.
  options.accept_base = false;
  options.live.discard = false;
  auto target = open_beside(queue, {.text = text, .source = source}, options);
  if (!target) return std::unexpected(target.error());
  tell_what_a_kill_loses(**target, options_.name, options_.log);
  drop_loaded(queue, *target);
  const std::lock_guard lock(mutex_);
  standing_.loaded = std::move(*target);
  standing_.loaded_source = source;
  return {};
}

// What is in use, and what waits to be, are to be shared.
Result<std::shared_ptr<Target>> DeviceFiles::open_beside(Queue& queue, const TableSpec& table,
                                                         const OpenOptions& options) {
  InUse in_use{.targets = {}, .follow_growth = [&](FileStore& file) { return follow_growth(queue, file); }};
  for (const auto& target : {opened_.device->target(), standing().loaded})
    std::ranges::copy(parts_of(target), std::back_inserter(in_use.targets));
  return open_table_beside(queue, *opened_.stores, table, options, in_use);
}

Result<void> DeviceFiles::unload(Queue& queue) {
  const std::unique_lock alone(changing_, std::try_to_lock);
  constexpr const char* what = "cannot unload table";
  if (!alone.owns_lock())
    return std::unexpected(Error(what, options_.name, "another change of it is under way"));
  what_ = what;
  if (standing().loaded == nullptr) return std::unexpected(refusal("none is loaded"));
  drop_loaded(queue, nullptr);
  return {};
}

// The device is suspended, and everything durable.
Result<void> DeviceFiles::swap(Queue& queue, const Users& users) {
  Device& device = *opened_.device;
  auto [next, source] = [this] {
    const std::lock_guard lock(mutex_);
    return std::pair(standing_.loaded, standing_.loaded_source);
  }();
  const bool shrinks = next->size() < device.size();
  const bool loses_writes = device.writable() && !next->writable();
  if (shrinks || loses_writes) {
    if (const std::string who = users(); !who.empty()) {
      return std::unexpected(refusal(fmt::format("{}, and it is about to {}: {}", k_busy,
                                                 shrinks ? "shrink" : "become read-only", who)));
    }
  }
  std::shared_ptr<Target> before = device.target();
  // Nothing of it can be lost, for it was flushed; the next opening of such a file puts it in order.
  log_unclean("was replaced", close_parts(queue, before, next));
  spec_ = TableSpec{.text = next->status().table, .source = source};
  const bool stays = has(parts_of(next), before);
  (void)device.replace(std::move(next), !options_.writable || standing().read_only);
  const std::weak_ptr<Target> gone = stays ? std::weak_ptr<Target>() : before;
  before.reset();
  wait_until_gone(gone);
  const std::lock_guard lock(mutex_);
  standing_.loaded = nullptr;
  standing_.source = std::move(source);
  return {};
}

Result<void> DeviceFiles::resume(Queue& queue, std::chrono::milliseconds limit, const Users& users) {
  const std::unique_lock alone(changing_, std::try_to_lock);
  if (!alone.owns_lock())
    return std::unexpected(Error(k_cannot_resume, options_.name, "another change of it is under way"));
  what_ = k_cannot_resume;
  if (auto whole = check_not_broken(); !whole) return whole;
  const bool suspended = standing().suspended_since.has_value();
  if (standing().loaded != nullptr) {
    if (!suspended) {
      if (auto held = hold(queue, limit); !held) return held;
    }
    const auto swapped = swap(queue, users);
    if (!swapped && !suspended) opened_.device->resume();
    if (!swapped) return swapped;
  } else if (!suspended) {
    return {};
  }
  {
    const std::lock_guard lock(mutex_);
    standing_.suspended_since.reset();
  }
  opened_.device->resume();
  return {};
}

void DeviceFiles::stop(Queue& queue) noexcept {
  stopping_.store(true);
  const std::scoped_lock alone(changing_);
  drop_loaded(queue, nullptr);
  {
    const std::lock_guard lock(mutex_);
    if (!standing_.suspended_since) return;
    standing_.suspended_since.reset();
  }
  opened_.device->resume();
}

}  // namespace oxbow
