// SPDX-License-Identifier: Apache-2.0
#include "control/serving.h"

#include <sys/mman.h>
#include <sys/prctl.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <deque>
#include <mutex>
#include <utility>
#include <variant>

#include "control/device_name.h"
#include "control/kernel_devices.h"
#include "control/registry.h"
#include "control/served.h"
#include "control/server.h"
#include "exports/fuse/file_export.h"
#include "exports/loop/leftovers.h"
#include "exports/loop/loop_export.h"
#include "exports/ublk/own_devices.h"
#include "exports/ublk/ublk_export.h"
#include "jobs/reopen_device.h"
#include "os/queue.h"
#include "targets/cow/live_choice.h"

namespace oxbow::control {
Error at_origin(const std::string& origin, const Error& error) {
  if (origin.empty()) return error;
  return {origin + ": " + error.what(), error.where(), error.why()};
}

namespace {

// A RAM disk that a client got by asking for it. Thread safety: none.
struct MadeDevice {
  OpenedDevice opened;
  std::unique_ptr<DeviceFiles> files;
};

// For whoever takes names in the run directory just now; it is a thread that serves clients that waits.
constexpr std::chrono::milliseconds k_patience(100);

}  // namespace

struct Serving::Parts {
  explicit Parts(ServingPlan&& planned) : plan(std::move(planned)) {}

  ServingPlan plan;
  Queue queue;
  std::vector<OpenedDevice> devices;                // as many of plan.devices as are open, in their order
  std::vector<std::unique_ptr<DeviceFiles>> files;  // of all of them
  std::mutex making;
  bool makes = false;           // guarded by making: RAM disks on demand
  std::deque<MadeDevice> made;  // guarded by making
  std::unique_ptr<nbd::Server> server;
  std::vector<std::unique_ptr<fuse::FileExport>>
      shown;  // as many as plan.devices, null for those without a file
  std::vector<std::unique_ptr<KernelDevices>> kernel;  // as many as plan.devices
  std::optional<Registration> registration;            // until `control` has it
  std::unique_ptr<Server> control;
};

Serving::Serving(ServingPlan plan) : parts_(std::make_unique<Parts>(std::move(plan))) {}

Serving::~Serving() {
  stop([this](const Error& error) {
    if (Log* const log = parts_->plan.log) log->write(LogLevel::error, "serve", error.text());
  });
}

Result<std::unique_ptr<Serving>> Serving::start(ServingPlan plan) {
  std::unique_ptr<Serving> serving(new Serving(std::move(plan)));
  for (const auto step : {&Serving::open_devices, &Serving::open_server, &Serving::take_names,
                          &Serving::open_files, &Serving::open_kernel_devices, &Serving::open_control}) {
    if (auto done = (serving.get()->*step)(); !done) return std::unexpected(std::move(done.error()));
  }
  return serving;
}

namespace {

bool is_kernels(const DeviceToServe& device) { return device.loop || device.ublk; }

// Nothing that answers the kernel may wait for memory that is freed by writing to the device: neither by an allocation,
// nor to get a page of the process back. The threads that are made from now on inherit it.
void depend_on_no_memory(Log* log) {
  const auto tell = [log](const char* what) {
    if (log != nullptr) log->write(LogLevel::debug, "serve", std::string(what) + ": " + std::strerror(errno));
  };
  if (::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) != 0) tell("may not be an I/O flusher");
  if (::mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0) tell("memory is not locked");
}

}  // namespace

// Why it can't be opened. Who still has the block device of a killed process mounted is not left waiting for what is
// lost.
Error Serving::not_opened(const DeviceToServe& device, const Error& error) const {
  if (!device.ublk || !parts_->plan.run_directory || !is_live_state_unusable(error)) return error;
  const auto left = ublk::fail_left(*parts_->plan.run_directory, device.name);
  if (!left) return {error.what(), error.where(), error.why() + "; and " + left.error().text()};
  if (!*left) return error;
  return {error.what(), error.where(),
          error.why() + "; " + **left + ", which it was, was stopped, and all its requests fail"};
}

OpenOptions Serving::options_of(const DeviceToServe& device) const {
  LiveSettings live = parts_->plan.live;
  live.discard = device.discard_live;
  return {.name = device.name,
          .writable = !device.read_only,
          .direct = device.direct,
          .ring = device.ring,
          .reserve_bytes = parts_->plan.reserve_bytes,
          .on_full = parts_->plan.on_full,
          .log = parts_->plan.log,
          .accept_base = device.accept_base,
          .allow_bases = device.allow_bases,
          .live = std::move(live)};
}

Result<void> Serving::open_devices() {
  if (std::ranges::any_of(parts_->plan.devices, is_kernels)) depend_on_no_memory(parts_->plan.log);
  for (DeviceToServe& each : parts_->plan.devices) {
    auto* const ram = std::get_if<RamSpec>(&each.spec);
    if (ram != nullptr && each.on_demand > 0) ram->shared = shared_ram_budget(*ram);
  }
  for (const DeviceToServe& each : parts_->plan.devices) {
    auto opened = open_device(parts_->queue, each.spec, options_of(each));
    if (!opened) return std::unexpected(at_origin(each.origin, not_opened(each, opened.error())));
    tell_what_a_kill_loses(*opened->device->target(), each.name, parts_->plan.log);
    parts_->devices.push_back(std::move(*opened));
  }
  for (std::size_t i = 0; i < parts_->devices.size(); ++i) {
    const DeviceToServe& each = parts_->plan.devices[i];
    parts_->files.push_back(std::make_unique<DeviceFiles>(parts_->devices[i], each.spec, options_of(each)));
  }
  return {};
}

Result<void> Serving::open_server() {
  ServingPlan& plan = parts_->plan;
  std::vector<nbd::Export> all;
  for (std::size_t i = 0; i < plan.devices.size(); ++i) {
    const DeviceToServe& each = plan.devices[i];
    all.push_back({.name = each.name,
                   .device = parts_->devices[i].device.get(),
                   .description = each.description,
                   .read_only = each.read_only});
  }
  auto exports = nbd::Exports::make(std::move(all));
  if (!exports) return std::unexpected(std::move(exports.error()));
  for (const DeviceToServe& each : plan.devices) {
    if (each.on_demand == 0) continue;
    exports->make_on_demand(
        [this, &each](std::string_view name) { return make_on_demand(each, std::string(name)); });
  }
  parts_->server = std::make_unique<nbd::Server>(std::move(*exports), plan.nbd);
  for (const AddressToServe& each : plan.addresses) {
    if (auto listening = parts_->server->listen(each.address); !listening)
      return std::unexpected(at_origin(each.origin, listening.error()));
  }
  for (UniqueFd& each : std::exchange(plan.sockets, {})) {
    if (auto listening = parts_->server->adopt(std::move(each)); !listening)
      return std::unexpected(std::move(listening.error()));
  }
  if (parts_->server->listeners() == 0) return {};  // it only answers that it has no clients
  return parts_->server->start();
}

// Before there are files and block devices that others could find, or that are called after a name.
Result<void> Serving::take_names() {
  const ServingPlan& plan = parts_->plan;
  if (!plan.run_directory) return {};
  std::vector<std::string> names;
  for (const DeviceToServe& each : plan.devices) names.push_back(each.name);
  auto taken = Registration::make(*plan.run_directory, std::move(names));
  if (taken) {
    parts_->registration.emplace(std::move(*taken));
    return {};
  }
  if (!plan.may_be_unlisted) return std::unexpected(std::move(taken.error()));
  if (plan.log) plan.log->write(LogLevel::info, "serve", "no control socket: " + taken.error().text());
  return {};
}

Result<void> Serving::open_files() {
  const ServingPlan& plan = parts_->plan;
  for (std::size_t i = 0; i < plan.devices.size(); ++i) {
    const DeviceToServe& each = plan.devices[i];
    parts_->shown.emplace_back();
    if (each.fuse.empty()) continue;
    auto shown = fuse::FileExport::start(*parts_->devices[i].device, each.fuse,
                                         {.read_only = each.read_only, .log = plan.log});
    if (!shown) return std::unexpected(at_origin(each.origin, shown.error()));
    parts_->shown.back() = std::move(*shown);
  }
  return {};
}

// Last: the kernel reads what they show while they are made.
Result<void> Serving::open_kernel_devices() {
  const auto& devices = parts_->plan.devices;
  for (const DeviceToServe& each : devices)
    parts_->kernel.push_back(std::make_unique<KernelDevices>(each.name));
  for (std::size_t i = 0; i < devices.size(); ++i) {
    auto added = devices[i].loop ? add_loop_device(i) : Result<void>();
    if (added && devices[i].ublk) added = add_ublk_device(i);
    if (!added) return std::unexpected(at_origin(devices[i].origin, added.error()));
  }
  for (std::size_t i = 0; i < devices.size(); ++i) {
    if (auto right = parts_->kernel[i]->check_below(*parts_->devices[i].device->target()); !right)
      return std::unexpected(at_origin(devices[i].origin, right.error()));
    std::ranges::move(uris_of(i), std::back_inserter(uris_));
    for (const std::string& each : parts_->kernel[i]->paths()) uris_.push_back("file://" + each);
  }
  return {};
}

Result<void> Serving::add_loop_device(std::size_t device) {
  const ServingPlan& plan = parts_->plan;
  const DeviceToServe& served = plan.devices[device];
  if (!plan.run_directory)
    return std::unexpected(
        Error("cannot make block device", served.name, "there is no run directory for its file"));
  auto added = loop::LoopExport::start(*parts_->devices[device].device,
                                       loop::file_of(*plan.run_directory, served.name),
                                       {.read_only = served.read_only, .log = plan.log});
  if (!added) return std::unexpected(std::move(added.error()));
  parts_->kernel[device]->add(std::move(*added));
  return {};
}

Result<void> Serving::add_ublk_device(std::size_t device) {
  const ServingPlan& plan = parts_->plan;
  const DeviceToServe& served = plan.devices[device];
  if (!plan.run_directory)
    return std::unexpected(
        Error("cannot make block device", served.name, "there is no run directory to note it in"));
  auto added = ublk::UblkExport::start(*parts_->devices[device].device, {.name = served.name,
                                                                         .run_directory = *plan.run_directory,
                                                                         .read_only = served.read_only,
                                                                         .log = plan.log});
  if (!added) return std::unexpected(std::move(added.error()));
  parts_->kernel[device]->add(std::move(*added));
  return {};
}

Result<nbd::Export> Serving::add_device(DeviceToServe device) {
  // Rare, and on a thread that has no queue for it.
  Queue queue;
  auto opened = open_device(queue, device.spec, options_of(device));
  if (!opened) return std::unexpected(std::move(opened.error()));
  MadeDevice& made = parts_->made.emplace_back(std::move(*opened), nullptr);
  made.files = std::make_unique<DeviceFiles>(made.opened, device.spec, options_of(device));
  Device* const served = made.opened.device.get();
  if (parts_->control) {
    auto shown = parts_->control->add({.name = device.name,
                                       .source = device.source,
                                       .device = served,
                                       .files = made.files.get(),
                                       .uris = nbd_uris(device.name)},
                                      k_patience);
    if (!shown) {
      parts_->made.pop_back();
      return std::unexpected(std::move(shown.error()));
    }
  }
  return nbd::Export{.name = device.name, .device = served, .description = device.description};
}

std::expected<nbd::Export, std::string> Serving::make_on_demand(const DeviceToServe& like,
                                                                const std::string& name) {
  if (std::string why = wrong_device_name(name); !why.empty()) return std::unexpected(std::move(why));
  const std::scoped_lock alone(parts_->making);
  if (!parts_->makes) return std::unexpected("none is made now");
  if (parts_->made.size() >= like.on_demand) return std::unexpected("no more are made on demand");
  DeviceToServe device = like;
  device.name = name;
  std::string why;
  try {
    auto added = add_device(std::move(device));
    if (added) return std::move(*added);
    why = added.error().text();
  } catch (const std::exception& error) {  // memory, or threads
    why = error.what();
  }
  // The reasons may name other processes, which are none of a client's business.
  if (Log* const log = parts_->plan.log)
    log->write(LogLevel::warning, "serve", "no RAM disk " + name + " on demand: " + why);
  return std::unexpected("it can't be made");
}

Result<void> Serving::open_control() {
  const ServingPlan& plan = parts_->plan;
  const std::scoped_lock making(parts_->making);
  parts_->makes = true;
  if (!parts_->registration) return {};
  Served served;
  served.ends_when_detached = plan.ends_when_detached;
  served.server = parts_->server.get();
  served.started = std::chrono::system_clock::now();
  for (std::size_t i = 0; i < plan.devices.size(); ++i) {
    const DeviceToServe& each = plan.devices[i];
    served.devices.push_back({.name = each.name,
                              .source = each.source,
                              .device = parts_->devices[i].device.get(),
                              .files = parts_->files[i].get(),
                              .file = parts_->shown[i].get(),
                              .kernel = parts_->kernel[i].get(),
                              .read_only = each.read_only,
                              .uris = uris_of(i)});
  }
  auto started =
      Server::start(std::move(served), *std::exchange(parts_->registration, std::nullopt), plan.log);
  if (!started) return std::unexpected(std::move(started.error()));
  parts_->control = std::move(*started);
  return {};
}

std::vector<std::string> Serving::kernel_paths() const {
  std::vector<std::string> all;
  for (const auto& each : parts_->kernel) std::ranges::move(each->paths(), std::back_inserter(all));
  return all;
}

std::string Serving::kernel_users() const {
  std::string all;
  for (const auto& each : parts_->kernel) {
    if (const std::string users = each->users(); !users.empty()) all += (all.empty() ? "" : "; ") + users;
  }
  return all;
}

std::vector<std::string> Serving::nbd_uris(const std::string& export_name) const {
  std::vector<std::string> uris;
  for (std::size_t i = 0; i < parts_->server->listeners(); ++i) {
    std::string uri = parts_->server->uri(export_name, i);
    // A name of several addresses has several sockets, all with the same URI.
    if (uris.empty() || uris.back() != uri) uris.push_back(std::move(uri));
  }
  return uris;
}

std::vector<std::string> Serving::uris_of(std::size_t device) const {
  const auto& devices = parts_->plan.devices;
  // With one device there is nothing to choose, and its URI stays short.
  std::vector<std::string> uris = nbd_uris(devices.size() == 1 ? "" : devices[device].name);
  if (const auto& shown = parts_->shown[device]) uris.push_back(shown->uri());
  return uris;
}

void Serving::stop(const std::function<void(const Error&)>& failed) {
  // Whoever waits for room would wait for ever; what is held back on their behalf goes on.
  for (OpenedDevice& each : parts_->devices) each.device->give_up_waiting();
  {
    const std::scoped_lock making(parts_->making);
    parts_->makes = false;
  }
  for (MadeDevice& each : parts_->made) each.opened.device->give_up_waiting();
  // What waits while a device is suspended is answered before its clients go.
  for (const auto& each : parts_->files) each->stop(parts_->queue);
  for (MadeDevice& each : parts_->made) each.files->stop(parts_->queue);
  if (parts_->control) parts_->control->stop();
  // While all that is below them still answers.
  for (const auto& each : parts_->kernel) each->stop(failed);
  if (parts_->server) parts_->server->stop();
  for (const auto& each : parts_->shown) {
    if (!each) continue;
    if (auto stopped = each->stop(); !stopped) failed(stopped.error());
  }
  parts_->files.clear();
  // RAM disks, which end with the process: there is nothing to be made durable.
  parts_->made.clear();
  for (OpenedDevice& each : std::exchange(parts_->devices, {})) {
    if (const IoStatus closed = each.device->close(parts_->queue); !closed.ok())
      failed(Error::from_errno("cannot close device", each.device->name(), closed.error_number()));
  }
}

}  // namespace oxbow::control
