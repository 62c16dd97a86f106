// SPDX-License-Identifier: Apache-2.0
// Every operation of the API, one entry each: docs/control.md describes them.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstring>
#include <functional>
#include <nlohmann/json.hpp>

#include "control/describe.h"
#include "control/describe_map.h"
#include "control/kernel_devices.h"
#include "control/metrics.h"
#include "control/router.h"
#include "device/device.h"
#include "jobs/reopen_device.h"
#include "os/queue.h"

namespace oxbow::control {
namespace {

using Json = nlohmann::ordered_json;

Reply index(const Call& call) {
  Json paths = Json::array();
  for (const Route& route : routes()) paths.push_back({{"method", route.method}, {"path", route.path}});
  return json_reply(
      {{"api", k_api}, {"process", describe_process(call.served)}, {"paths", std::move(paths)}});
}

Reply list(const Call& call) {
  Json devices = Json::array();
  for (const ServedDevice& device : call.served.devices.all()) devices.push_back(describe_briefly(device));
  return json_reply({{"process", describe_process(call.served)}, {"devices", std::move(devices)}});
}

Reply status(const Call& call) { return json_reply(describe(call.served, *call.device)); }

Reply table(const Call& call) { return json_reply(describe_table(*call.device)); }

// A POST, for a GET has no body.
Reply map(const Call& call) {
  constexpr auto what = "cannot map device";
  const std::string& name = call.device->name;
  std::uint64_t start = 0;
  if (const auto given = call.body.find("start"); given != call.body.end()) {
    if (!given->is_number_unsigned())
      return error_reply(400, Error(what, name, "start is to be a number of bytes"));
    start = given->get<std::uint64_t>();
  }
  Queue queue;
  const auto mapped = describe_map(queue, *call.device, start);
  return mapped ? json_reply(*mapped) : error_reply(500, mapped.error());
}

Reply sync(const Call& call) {
  // A queue of its own: a request of this kind is rare, and waits for the medium anyway.
  Queue queue;
  const IoStatus flushed = run_blocking(queue, [&](Io& io) { return call.device->device->flush(io); });
  if (flushed.ok() && call.device->files != nullptr && call.device->device->target()->untidy()) {
    if (const auto settled = call.device->files->tidy_up(queue); !settled)
      return error_reply(call.device->device->failure() == 0 ? 409 : 500, settled.error());
  }
  if (flushed.ok()) return json_reply({{"name", call.device->name}, {"durable", true}});
  const int cause = call.device->device->failure();
  std::string why = std::strerror(cause != 0 ? cause : flushed.error_number());
  if (cause != 0) why += "; changes are refused until it is served anew";
  return error_reply(500, Error("cannot sync device", call.device->name, std::move(why)));
}

// A change of the structure, `make`, and what it came to.
Reply change(const Call& call, const char* what,
             const std::function<Result<void>(Queue&, DeviceFiles&)>& make) {
  const ServedDevice& device = *call.device;
  if (device.files == nullptr)
    return error_reply(409, Error(what, device.name, "its files can't be changed while it is served"));
  Queue queue;
  const auto made = make(queue, *device.files);
  if (!made) {
    const bool broken = device.files->standing().state == DeviceFiles::State::broken;
    return error_reply(broken ? 500 : 409, made.error());
  }
  return json_reply(describe_briefly(device));
}

// That a change would pull the ground from under a file system that is mounted. What the kernel keeps of a block device
// is written before the change, and forgotten after it.
Reply change_content(const Call& call, const char* what,
                     const std::function<Result<void>(Queue&, DeviceFiles&)>& make) {
  if (call.device->kernel == nullptr) return change(call, what, make);
  if (const std::string users = call.device->kernel->users(); !users.empty())
    return error_reply(409, Error(what, call.device->name, "Device or resource busy: " + users));
  if (auto written = call.device->kernel->changed(); !written) return error_reply(500, written.error());
  Reply reply = change(call, what, make);
  if (auto forgotten = call.device->kernel->changed(); !forgotten) return error_reply(500, forgotten.error());
  return reply;
}

Reply reset(const Call& call) {
  return change_content(call, "cannot reset device",
                        [](Queue& queue, DeviceFiles& files) { return files.reset(queue); });
}

// Who would have less than they were told, when it gets smaller; empty: nobody.
std::string against_shrinking(const Call& call) {
  std::string users = users_text(call.served, *call.device);
  return users.empty() && call.device->kernel != nullptr ? call.device->kernel->fixed_size() : users;
}

Reply resize(const Call& call) {
  const auto size = call.body.find("size");
  if (size == call.body.end() || !size->is_number_unsigned()) {
    return error_reply(400, Error("cannot resize device", call.device->name,
                                  "the body is to have a member size, a number of bytes"));
  }
  const auto bytes = size->get<std::uint64_t>();
  KernelDevices* const kernel = call.device->kernel;
  if (kernel != nullptr) {
    if (const std::string why = kernel->fixed_size(); !why.empty())
      return error_reply(409, Error("cannot resize device", call.device->name, why));
  }
  return change(call, "cannot resize device", [&](Queue& queue, DeviceFiles& files) -> Result<void> {
    auto resized = files.resize(queue, bytes, [&] { return against_shrinking(call); });
    if (!resized || kernel == nullptr) return resized;
    return kernel->changed();
  });
}

Reply clear(const Call& call) {
  return change_content(call, "cannot clear device", [&](Queue& queue, DeviceFiles& files) {
    return files.clear(queue, [&] { return users_text(call.served, *call.device); });
  });
}

Reply close(const Call& call) {
  return change(call, "cannot close device",
                [](Queue& queue, DeviceFiles& files) { return files.close(queue); });
}

Reply reopen_read_only(const Call& call) {
  return change(call, "cannot reopen device",
                [](Queue& queue, DeviceFiles& files) { return files.reopen_read_only(queue); });
}

Reply detach(const Call& call) {
  const auto force = call.body.find("force");
  if (force != call.body.end() && !force->is_boolean())
    return error_reply(
        400, Error("cannot detach device", call.device->name, "the member force is to be a boolean"));
  const bool by_force = force != call.body.end() && force->get<bool>();
  if (call.device->kernel == nullptr)
    return error_reply(
        409, Error("cannot detach device", call.device->name, "it is no block device of the kernel's"));
  // What the kernel has to write first would wait.
  if (call.device->files != nullptr && call.device->files->standing().suspended_since)
    return error_reply(409,
                       Error("cannot detach device", call.device->name, "it is suspended: resume it first"));
  const bool was_there = !call.device->kernel->paths().empty();
  const auto detached = call.device->kernel->detach(by_force);
  const auto is_kernels = [](const ServedDevice& each) {
    return each.kernel != nullptr && !each.kernel->paths().empty();
  };
  const bool ends = was_there && call.served.ends_when_detached &&
                    std::ranges::none_of(call.served.devices.all(), is_kernels);
  if (ends) (void)::kill(::getpid(), SIGTERM);  // to itself, which can't fail
  if (detached) return json_reply({{"name", call.device->name}, {"ends", ends}});
  return error_reply(call.device->kernel->paths().empty() && was_there ? 500 : 409, detached.error());
}

// The member timeout, or why it isn't one.
Result<std::chrono::milliseconds> timeout_of(const Call& call, const char* what) {
  constexpr std::uint64_t usual_s = 30, most_s = 86400;
  const auto timeout = call.body.find("timeout");
  if (timeout == call.body.end()) return std::chrono::seconds(usual_s);
  if (timeout->is_number_unsigned()) {
    const auto seconds = timeout->get<std::uint64_t>();
    if (seconds >= 1 && seconds <= most_s) return std::chrono::seconds(seconds);
  }
  return std::unexpected(Error(what, call.device->name,
                               fmt::format("the member timeout is a number of seconds, 1 to {}", most_s)));
}

Reply suspend(const Call& call) {
  constexpr const char* what = "cannot suspend device";
  const auto timeout = timeout_of(call, what);
  if (!timeout) return error_reply(400, timeout.error());
  return change(call, what, [&](Queue& queue, DeviceFiles& files) { return files.suspend(queue, *timeout); });
}

// Why block devices of the kernel's can't have the table that is loaded; empty when they can. Whether one is in use
// can't be asked: that may need the device, which may be suspended.
std::string why_not_for_kernel(const ServedDevice& device, const std::shared_ptr<Target>& loaded) {
  const std::uint64_t before = device.device->size();
  if (device.kernel == nullptr || loaded == nullptr || loaded->size() == before) return {};
  const auto paths = device.kernel->paths();
  if (paths.empty()) return {};
  if (loaded->size() < before)
    return "it would shrink, and is a block device of the kernel's: " + paths.front();
  return device.kernel->fixed_size();
}

Reply resume(const Call& call) {
  constexpr const char* what = "cannot resume device";
  const auto timeout = timeout_of(call, what);
  if (!timeout) return error_reply(400, timeout.error());
  const ServedDevice& device = *call.device;
  return change(call, what, [&](Queue& queue, DeviceFiles& files) -> Result<void> {
    const std::shared_ptr<Target> loaded = files.standing().loaded;
    if (std::string why = why_not_for_kernel(device, loaded); !why.empty())
      return std::unexpected(Error(what, device.name, std::move(why)));
    auto resumed = files.resume(queue, *timeout, [&] { return users_text(call.served, device); });
    if (!resumed || device.kernel == nullptr || loaded == nullptr) return resumed;
    return device.kernel->changed();
  });
}

Reply load(const Call& call) {
  constexpr const char* what = "cannot load table";
  const auto table = call.body.find("table");
  const auto source = call.body.find("source");
  if (table == call.body.end() || !table->is_string())
    return error_reply(400, Error(what, call.device->name, "the body is to have a member table, a text"));
  if (source != call.body.end() && !source->is_string())
    return error_reply(400, Error(what, call.device->name, "the member source is a text"));
  const std::string name = source == call.body.end() ? "table" : source->get<std::string>();
  return change(call, what, [&](Queue& queue, DeviceFiles& files) -> Result<void> {
    auto loaded = files.load(queue, table->get<std::string>(), name);
    const auto target = files.standing().loaded;
    if (!loaded || call.device->kernel == nullptr || target == nullptr) return loaded;
    if (auto right = call.device->kernel->check_below(*target); !right) {
      auto unloaded = files.unload(queue);
      return unloaded ? right : unloaded;
    }
    return loaded;
  });
}

Reply unload(const Call& call) {
  return change(call, "cannot unload table",
                [](Queue& queue, DeviceFiles& files) { return files.unload(queue); });
}

Reply space(const Call& call) { return json_reply(describe_space(*call.device)); }

Reply metrics(const Call& call) {
  return {.status = 200, .body = metrics_text(call.served), .type = "text/plain; version=0.0.4"};
}

constexpr std::span<const std::string_view> k_nothing;
constexpr std::array<std::string_view, 1> k_size{"size"};
constexpr std::array<std::string_view, 1> k_force{"force"};
constexpr std::array<std::string_view, 1> k_start{"start"};
constexpr std::array<std::string_view, 1> k_timeout{"timeout"};
constexpr std::array<std::string_view, 2> k_table{"table", "source"};

constexpr auto k_routes = std::to_array<Route>({
    {"GET", "/v1", Cost::quick, k_nothing, index},
    {"GET", "/v1/devices", Cost::quick, k_nothing, list},
    {"GET", "/v1/devices/{name}", Cost::quick, k_nothing, status},
    {"GET", "/v1/devices/{name}/table", Cost::quick, k_nothing, table},
    {"POST", "/v1/devices/{name}/map", Cost::waits, k_start, map},
    {"POST", "/v1/devices/{name}/sync", Cost::waits, k_nothing, sync},
    {"GET", "/v1/devices/{name}/space", Cost::quick, k_nothing, space},
    {"POST", "/v1/devices/{name}/reset", Cost::waits, k_nothing, reset},
    {"POST", "/v1/devices/{name}/resize", Cost::waits, k_size, resize},
    {"POST", "/v1/devices/{name}/clear", Cost::waits, k_nothing, clear},
    {"POST", "/v1/devices/{name}/close", Cost::waits, k_nothing, close},
    {"POST", "/v1/devices/{name}/reopen-ro", Cost::waits, k_nothing, reopen_read_only},
    {"POST", "/v1/devices/{name}/detach", Cost::waits, k_force, detach},
    {"POST", "/v1/devices/{name}/suspend", Cost::waits, k_timeout, suspend},
    {"POST", "/v1/devices/{name}/load", Cost::waits, k_table, load},
    {"POST", "/v1/devices/{name}/unload", Cost::waits, k_nothing, unload},
    {"POST", "/v1/devices/{name}/resume", Cost::waits, k_timeout, resume},
    {"GET", "/metrics", Cost::quick, k_nothing, metrics},
});

}  // namespace

std::span<const Route> routes() noexcept { return k_routes; }

}  // namespace oxbow::control
