// SPDX-License-Identifier: Apache-2.0
// Every operation of the API, one entry each: docs/control.md describes them.

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <nlohmann/json.hpp>

#include "control/describe.h"
#include "control/metrics.h"
#include "control/router.h"
#include "device/device.h"
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
  for (const ServedDevice& device : call.served.devices) devices.push_back(describe_briefly(device));
  return json_reply({{"process", describe_process(call.served)}, {"devices", std::move(devices)}});
}

Reply status(const Call& call) { return json_reply(describe(call.served, *call.device)); }

Reply table(const Call& call) { return json_reply(describe_table(*call.device)); }

Reply sync(const Call& call) {
  // A queue of its own: a request of this kind is rare, and waits for the medium anyway.
  Queue queue;
  const IoStatus flushed = run_blocking(queue, [&](Io& io) { return call.device->device->flush(io); });
  if (flushed.ok()) return json_reply({{"name", call.device->name}, {"durable", true}});
  const int cause = call.device->device->failure();
  std::string why = std::strerror(cause != 0 ? cause : flushed.error_number());
  if (cause != 0) why += "; changes are refused until it is served anew";
  return error_reply(500, Error("cannot sync device", call.device->name, std::move(why)));
}

Reply metrics(const Call& call) {
  return {.status = 200, .body = metrics_text(call.served), .type = "text/plain; version=0.0.4"};
}

constexpr std::span<const std::string_view> k_nothing;

constexpr auto k_routes = std::to_array<Route>({
    {"GET", "/v1", Cost::quick, k_nothing, index},
    {"GET", "/v1/devices", Cost::quick, k_nothing, list},
    {"GET", "/v1/devices/{name}", Cost::quick, k_nothing, status},
    {"GET", "/v1/devices/{name}/table", Cost::quick, k_nothing, table},
    {"POST", "/v1/devices/{name}/sync", Cost::waits, k_nothing, sync},
    {"GET", "/metrics", Cost::quick, k_nothing, metrics},
});

}  // namespace

std::span<const Route> routes() noexcept { return k_routes; }

}  // namespace oxbow::control
