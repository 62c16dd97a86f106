// SPDX-License-Identifier: Apache-2.0
#include "control/metrics.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>

#include "control/describe.h"
#include "device/device.h"
#include "device/latency.h"
#include "device/statistics.h"
#include "exports/nbd/server.h"

namespace oxbow::control {
namespace {

// Label values have backslashes, quotes and line feeds escaped.
std::string escaped(std::string_view text) {
  std::string out;
  for (const char each : text) {
    if (each == '\\' || each == '"') out += '\\';
    if (each == '\n') {
      out += "\\n";
    } else {
      out += each;
    }
  }
  return out;
}

// Writes families one after the other. Thread safety: none.
class Text {
 public:
  void family(std::string_view name, std::string_view type, std::string_view help) {
    print("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
  }
  template <typename... Args>
  void print(fmt::format_string<Args...> format, Args&&... args) {
    fmt::format_to(std::back_inserter(text_), format, std::forward<Args>(args)...);
  }
  [[nodiscard]] std::string take() { return std::move(text_); }

 private:
  std::string text_;
};

constexpr std::array<std::string_view, k_counters> k_help = {
    "Reads.",
    "Bytes asked for by reads.",
    "Writes.",
    "Bytes written by clients.",
    "Requests to write zeroes.",
    "Bytes of requests to write zeroes.",
    "Discards.",
    "Bytes of discards.",
    "Flushes that clients asked for.",
    "Flushes carried out; one may serve many.",
    "Bytes copied from below to complete partly written clusters.",
    "Bytes of data written to stores.",
    "Bytes of metadata written to stores.",
    "Requests that waited for another one.",
    "Requests that failed.",
    "Pieces read from the device's own store.",
    "Pieces read from what is below it.",
};

void add_counters(Text& text, const Served& served) {
  const auto devices = served.devices.all();
  std::vector<StatisticsSnapshot> counted;
  for (const ServedDevice& device : devices) counted.push_back(device.device->statistics());
  for (std::size_t i = 0; i < k_counters; ++i) {
    const std::string name = fmt::format("oxbow_device_{}_total", name_of(static_cast<Counter>(i)));
    text.family(name, "counter", k_help[i]);
    for (std::size_t d = 0; d < devices.size(); ++d) {
      text.print("{}{{device=\"{}\"}} {}\n", name, escaped(devices[d].get().name), counted[d].values[i]);
    }
  }
}

void add_gauges(Text& text, const Served& served) {
  text.family("oxbow_device_size_bytes", "gauge", "Size of the device.");
  for (const ServedDevice& device : served.devices.all()) {
    text.print("oxbow_device_size_bytes{{device=\"{}\"}} {}\n", escaped(device.name), device.device->size());
  }
  text.family("oxbow_device_failed", "gauge",
              "1 once changes are refused until the device is served anew, else 0.");
  for (const ServedDevice& device : served.devices.all()) {
    text.print("oxbow_device_failed{{device=\"{}\"}} {}\n", escaped(device.name),
               state_of(device) == "failed" ? 1 : 0);
  }
  text.family("oxbow_device_suspended", "gauge", "1 while requests wait for a resume, else 0.");
  for (const ServedDevice& device : served.devices.all()) {
    text.print("oxbow_device_suspended{{device=\"{}\"}} {}\n", escaped(device.name),
               state_of(device) == "suspended" ? 1 : 0);
  }
}

void add_room(Text& text, const Served& served) {
  const auto devices = served.devices.all();
  std::vector<std::optional<RoomStatus>> rooms;
  for (const ServedDevice& device : devices) rooms.push_back(device.device->room());
  const auto family = [&](std::string_view name, std::string_view help, auto&& value) {
    text.family(name, "gauge", help);
    for (std::size_t d = 0; d < rooms.size(); ++d)
      text.print("{}{{device=\"{}\"}} {}\n", name, escaped(devices[d].get().name),
                 rooms[d] ? value(*rooms[d]) : 0);
  };
  family("oxbow_device_paused", "1 while changes wait for room, else 0.",
         [](const RoomStatus&) -> std::size_t { return 1; });
  family("oxbow_device_waiting_changes", "Changes that wait for room.",
         [](const RoomStatus& room) { return room.changes; });
  family("oxbow_device_waiting_flushes", "Flushes and durable changes that wait while changes wait for room.",
         [](const RoomStatus& room) { return room.flushes; });
}

void add_clients(Text& text, const Served& served) {
  if (served.server == nullptr) return;
  const std::vector<nbd::ClientStatus> clients = served.server->clients();
  text.family("oxbow_device_clients", "gauge", "Clients that use the device now.");
  for (const ServedDevice& device : served.devices.all()) {
    const auto uses = [&](const nbd::ClientStatus& client) {
      return client.serving && client.device == device.device;
    };
    text.print("oxbow_device_clients{{device=\"{}\"}} {}\n", escaped(device.name),
               std::ranges::count_if(clients, uses));
  }
  text.family("oxbow_clients_haggling", "gauge", "Clients that have not chosen a device yet.");
  text.print("oxbow_clients_haggling {}\n", std::ranges::count(clients, false, &nbd::ClientStatus::serving));
}

void add_histogram(Text& text, std::string_view labels, const LatencySnapshot::Kind& kind) {
  constexpr std::string_view k_name = "oxbow_device_latency_seconds";
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i + 1 < k_latency_buckets; ++i) {
    sum += kind.buckets[i];
    text.print("{}_bucket{{{},le=\"{}\"}} {}\n", k_name, labels,
               static_cast<double>(latency_bound_us(i)) / 1e6, sum);
  }
  sum += kind.buckets.back();
  text.print("{}_bucket{{{},le=\"+Inf\"}} {}\n", k_name, labels, sum);
  text.print("{}_sum{{{}}} {}\n", k_name, labels, static_cast<double>(kind.total_ns) / 1e9);
  text.print("{}_count{{{}}} {}\n", k_name, labels, sum);
}

void add_latencies(Text& text, const Served& served) {
  text.family("oxbow_device_latency_seconds", "histogram",
              "Time from the arrival of a request to the sending of its reply.");
  for (const ServedDevice& device : served.devices.all()) {
    const LatencySnapshot counted = device.device->latencies();
    for (std::size_t kind = 0; kind < k_request_kinds; ++kind) {
      const std::string labels = fmt::format(R"(device="{}",request="{}")", escaped(device.name),
                                             name_of(static_cast<RequestKind>(kind)));
      add_histogram(text, labels, counted.kinds[kind]);
    }
  }
}

}  // namespace

std::string metrics_text(const Served& served) {
  Text text;
  text.family("oxbow_build_info", "gauge", "The program's version, as a label.");
  text.print("oxbow_build_info{{version=\"{}\"}} 1\n", OXBOW_VERSION);
  text.family("oxbow_start_time_seconds", "gauge",
              "When the process started serving, in seconds since 1970.");
  const auto started = std::chrono::duration<double>(served.started.time_since_epoch()).count();
  text.print("oxbow_start_time_seconds {:.3f}\n", started);
  add_gauges(text, served);
  add_room(text, served);
  add_clients(text, served);
  add_counters(text, served);
  add_latencies(text, served);
  return text.take();
}

}  // namespace oxbow::control
