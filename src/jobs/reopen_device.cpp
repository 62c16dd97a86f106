// SPDX-License-Identifier: Apache-2.0
#include "jobs/reopen_device.h"

#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "os/absolute_path.h"
#include "stores/open_stores.h"
#include "stores/ram/ram_store.h"
#include "targets/cow/cow_target.h"
#include "targets/cow/layer_edit.h"
#include "targets/error/error_target.h"
#include "targets/linear/ram_target.h"

namespace oxbow {
namespace {

// As the kernel calls EBUSY.
constexpr const char* k_busy = "Device or resource busy";
constexpr const char* k_ending = "it is about to end";

// The working directory may change before the files are opened again.
DeviceSpec lasting(DeviceSpec spec) {
  if (auto* layer = std::get_if<LayerSpec>(&spec)) layer->path = absolute_path(layer->path);
  // Its layer is there now, and is not to be made again.
  if (auto* overlay = std::get_if<OverlaySpec>(&spec)) return LayerSpec{absolute_path(overlay->layer)};
  if (auto* file = std::get_if<FileSpec>(&spec)) file->path = absolute_path(file->path);
  // Its cowfile is there now, and sound.
  if (auto* pair = std::get_if<CowloopSpec>(&spec))
    return CowloopSpec{.base = absolute_path(pair->base), .cowfile = absolute_path(pair->cowfile)};
  return spec;
}

OpenOptions lasting(OpenOptions options) {
  for (std::string& base : options.allow_bases) base = absolute_path(base);
  return options;
}

}  // namespace

// Holds the requests of a device, unless the device is about to end before those in flight have. Thread safety: its
// thread.
class DeviceFiles::Suspended {
 public:
  Suspended(DeviceFiles& files, Queue& queue)
      : device_(*files.opened_.device),
        held_(device_.suspend_unless(queue, [&files] { return files.stopping_.load(); })) {}
  ~Suspended() {
    if (held_) device_.resume();
  }
  [[nodiscard]] bool held() const noexcept { return held_; }
  Suspended(const Suspended&) = delete;
  Suspended& operator=(const Suspended&) = delete;
  Suspended(Suspended&&) = delete;
  Suspended& operator=(Suspended&&) = delete;

 private:
  Device& device_;
  const bool held_;
};

DeviceFiles::DeviceFiles(OpenedDevice& opened, DeviceSpec spec, OpenOptions options)
    : opened_(opened),
      spec_(lasting(std::move(spec))),
      is_ram_(std::holds_alternative<RamSpec>(spec_)),
      options_(lasting(std::move(options))) {}

DeviceFiles::Standing DeviceFiles::standing() const {
  const std::lock_guard lock(mutex_);
  return standing_;
}

Error DeviceFiles::refusal(std::string why) const { return {what_, options_.name, std::move(why)}; }

std::string DeviceFiles::layer_path() const {
  const auto* const layer = std::get_if<LayerSpec>(&spec_);
  return layer == nullptr ? std::string() : layer->path;
}

Result<void> DeviceFiles::check_has_files() const {
  if (!is_ram_) return {};
  return std::unexpected(refusal("it is a RAM disk, which has no files"));
}

Result<void> DeviceFiles::change(Queue& queue, const char* what, const Change& make) {
  const std::unique_lock alone(changing_, std::try_to_lock);
  if (!alone.owns_lock())
    return std::unexpected(Error(what, options_.name, "another change of it is under way"));
  what_ = what;
  if (stopping_.load()) return std::unexpected(refusal(k_ending));
  if (const Standing now = standing(); now.suspended_since || now.loaded != nullptr) {
    return std::unexpected(refusal(now.suspended_since
                                       ? "it is suspended: resume it first"
                                       : "a table is loaded for it: resume it first, or unload the table"));
  }
  // They would have to end first, and nobody knows when.
  if (opened_.device->room()) return std::unexpected(refusal(waits_for_room()));
  return make(queue);
}

const char* DeviceFiles::waits_for_room() const noexcept {
  return is_ram_ ? "changes of it wait for room in its budget: discard something first"
                 : "changes of it wait for room on its file system: make some first";
}

Result<void> DeviceFiles::change_files(Queue& queue, const char* what, const Change& make) {
  return change(queue, what, [&](Queue& own) -> Result<void> {
    if (auto has = check_has_files(); !has) return has;
    return make(own);
  });
}

void DeviceFiles::wait_until_gone(const std::weak_ptr<Target>& target) noexcept {
  for (int tries = 0; tries < 1000 && !target.expired(); ++tries)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

void DeviceFiles::put(std::shared_ptr<Target> next, bool read_only, Standing standing) {
  std::weak_ptr<Target> before;
  before = opened_.device->replace(std::move(next), read_only);
  wait_until_gone(before);
  const std::lock_guard lock(mutex_);
  standing.source = std::move(standing_.source);
  standing_ = std::move(standing);
}

Result<void> DeviceFiles::close_target(Queue& queue) {
  const IoStatus closed = opened_.device->close(queue);
  if (closed.ok()) return {};
  const Error error = Error::from_errno(what_, options_.name, closed.error_number());
  const std::string why = "what was written could not be made durable: " + error.why();
  put(std::make_shared<ErrorTarget>(opened_.device->size(), true, ErrorTarget::Flushes::fail),
      !options_.writable, {.state = State::broken, .why = why});
  return std::unexpected(refusal(why));
}

Result<void> DeviceFiles::open_again(Queue& queue, std::shared_ptr<OpenStores> stores, bool read_only) {
  OpenOptions options = options_;
  options.writable = options_.writable && !read_only;
  auto target = open_device_target(queue, *stores, spec_, options);
  if (target) {
    opened_.stores = std::move(stores);
    put(std::move(*target), !options.writable, {.state = State::open, .read_only = read_only, .why = {}});
    return {};
  }
  const std::string why = "it could not be opened again: " + target.error().text();
  put(std::make_shared<ErrorTarget>(opened_.device->size(), true), !options_.writable,
      {.state = State::broken, .why = why});
  return std::unexpected(refusal(why));
}

Result<void> DeviceFiles::run_on_layer(Queue& queue, const std::string& path, const Job& job) {
  // Still open through the old target: the same store, and the same lock.
  const auto store = opened_.stores->open_file(
      path, {.writable = true, .direct = options_.direct, .lock = LockMode::exclusive});
  if (!store) return std::unexpected(refusal(store.error().text()));
  const std::shared_ptr<Target> target = opened_.device->target();
  const auto* const layer = dynamic_cast<const CowTarget*>(target.get());
  if (layer == nullptr || &layer->store() != store->get())
    return std::unexpected(refusal(fmt::format("{} is not the layer any more that is served", path)));
  return job(queue, **store);
}

Result<void> DeviceFiles::change_layer(Queue& queue, const char* what, const Job& job) {
  return change_files(queue, what, [&](Queue& own) -> Result<void> {
    const std::string path = layer_path();
    if (path.empty()) return std::unexpected(refusal("it is not a layer"));
    if (const Standing now = standing(); now.state != State::open)
      return std::unexpected(refusal(now.state == State::closed ? "it is closed" : now.why));
    if (!opened_.device->writable()) return std::unexpected(refusal("it is read-only"));
    if (opened_.device->failure() != 0)
      return std::unexpected(refusal("it has failed, and has to be served anew first"));
    const Suspended suspended(*this, own);
    if (!suspended.held()) return std::unexpected(refusal(k_ending));
    if (auto closed = close_target(own); !closed) return closed;
    const auto done = run_on_layer(own, path, job);
    if (auto opened = open_again(own, opened_.stores, false); !opened) return opened;
    return done;
  });
}

Result<void> DeviceFiles::reset(Queue& queue) {
  return change_layer(queue, "cannot reset device", reset_layer);
}

Result<void> DeviceFiles::resize(Queue& queue, std::uint64_t size_bytes, const Users& users) {
  constexpr const char* what = "cannot resize device";
  if (!is_ram_) {
    return change_layer(
        queue, what, [size_bytes](Queue& own, Store& layer) { return grow_layer(own, layer, size_bytes); });
  }
  return change_ram(queue, what, [&](Queue& /*own*/, const auto& store) -> Result<void> {
    if (size_bytes == 0) return std::unexpected(refusal("the size must not be 0"));
    if (const std::string who = users(); size_bytes < store->size() && !who.empty())
      return std::unexpected(refusal(fmt::format("{}, and it is about to shrink: {}", k_busy, who)));
    return resize_ram(store, size_bytes);
  });
}

Result<void> DeviceFiles::change_ram(Queue& queue, const char* what, const RamJob& job) {
  return change(queue, what, [&](Queue& own) -> Result<void> {
    if (!is_ram_) return std::unexpected(refusal("it is not a RAM disk"));
    if (!opened_.device->writable()) return std::unexpected(refusal("it is read-only"));
    const Suspended suspended(*this, own);
    if (!suspended.held()) return std::unexpected(refusal(k_ending));
    std::shared_ptr<RamStore> store;
    {
      const std::shared_ptr<Target> target = opened_.device->target();
      if (const auto* const linear = dynamic_cast<const LinearTarget*>(target.get()))
        store = std::dynamic_pointer_cast<RamStore>(linear->store());
    }
    if (store == nullptr) return std::unexpected(refusal("it is not the RAM disk any more that is served"));
    return job(own, store);
  });
}

Result<void> DeviceFiles::resize_ram(const std::shared_ptr<RamStore>& store, std::uint64_t size_bytes) {
  const auto budget = ram_budget(std::get<RamSpec>(spec_), size_bytes, store->allocated_bytes());
  if (!budget) return std::unexpected(refusal(budget.error().why()));
  const std::uint64_t before = store->facts().total_bytes.value_or(*budget);
  // A preallocated one takes more at once; one that shrinks gives back first.
  if (size_bytes > store->size()) store->set_budget(*budget);
  const int error = store->resize(size_bytes);
  store->set_budget(error == 0 ? *budget : before);
  if (error == ENOMEM || error == EFBIG)
    return std::unexpected(refusal("it does not fit into this process's address space, or into memory"));
  if (error != 0) return std::unexpected(refusal(std::strerror(error)));
  put(std::make_shared<RamTarget>(store, options_.writable), !options_.writable, {});
  return {};
}

Result<void> DeviceFiles::clear(Queue& queue, const Users& users) {
  return change_ram(queue, "cannot clear device", [&](Queue& own, const auto& store) -> Result<void> {
    if (const std::string who = users(); !who.empty())
      return std::unexpected(refusal(fmt::format("{}: {}", k_busy, who)));
    const IoStatus cleared = run_blocking(own, [&](Io& io) { return store->clear(io); });
    if (cleared.ok()) return {};
    return std::unexpected(refusal(std::strerror(cleared.error_number())));
  });
}

Result<void> DeviceFiles::tidy_up(Queue& queue) {
  // Whoever changes the structure meanwhile leaves it clean as well; but then it would have to be refused.
  const std::scoped_lock alone(changing_);
  if (standing().suspended_since || !opened_.device->target()->untidy()) return {};
  what_ = "cannot sync device";
  if (opened_.device->room()) return std::unexpected(refusal(waits_for_room()));
  const Suspended suspended(*this, queue);
  if (!suspended.held()) return std::unexpected(refusal(k_ending));
  const IoStatus settled = opened_.device->tidy_up(queue);
  if (settled.ok()) return {};
  return std::unexpected(refusal(std::string("what was written could not be made durable: ") +
                                 std::strerror(settled.error_number())));
}

Result<void> DeviceFiles::close(Queue& queue) {
  return change_files(queue, "cannot close device", [this](Queue& own) -> Result<void> {
    if (standing().state == State::closed) return {};
    const Suspended suspended(*this, own);
    if (!suspended.held()) return std::unexpected(refusal(k_ending));
    if (standing().state == State::open) {
      if (auto closed = close_target(own); !closed) return closed;
    }
    put(std::make_shared<ErrorTarget>(opened_.device->size(), true), !options_.writable,
        {.state = State::closed, .why = {}});
    return {};
  });
}

Result<void> DeviceFiles::reopen_read_only(Queue& queue) {
  return change_files(queue, "cannot reopen device", [this](Queue& own) -> Result<void> {
    const Suspended suspended(*this, own);
    if (!suspended.held()) return std::unexpected(refusal(k_ending));
    if (standing().state == State::open) {
      if (auto closed = close_target(own); !closed) return closed;
      // So that nobody else gets hold of the files before they are open again.
      if (const auto shared = opened_.stores->share_locks(); !shared) {
        if (auto opened = open_again(own, opened_.stores, false); !opened) return opened;
        return std::unexpected(refusal(shared.error().text()));
      }
    }
    return open_again(own, std::make_shared<OpenStores>(), true);
  });
}

}  // namespace oxbow
