// SPDX-License-Identifier: Apache-2.0
#pragma once

// What is served, as the API shows it (docs/control.md).

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "control/served.h"
#include "device/latency.h"
#include "device/statistics.h"

namespace oxbow::control {

// The version of the API, the first part of its paths.
inline constexpr std::string_view k_api = "v1";

// Seconds since 1970 as "2026-11-20T13:05:34Z".
[[nodiscard]] std::string time_text(std::chrono::system_clock::time_point time);

// Who has the device open, for an error: "2 clients have it open: process 7 of user 0, 192.0.2.1:5000", or
// "file:///disk.img is open"; empty: nobody.
[[nodiscard]] std::string users_text(const Served& served, const ServedDevice& device);

// Who uses the block devices that show it: "/dev/loop0: mounted at /mnt"; empty: nobody, or there are none.
[[nodiscard]] std::string kernel_users_text(const ServedDevice& device);

// How it can be reached now: the URIs of clients, then "file:///dev/loop0" for each block device.
[[nodiscard]] std::vector<std::string> uris_of(const ServedDevice& device);

// "writable", "read-only", "closed" when it has let go of its files, or "failed" once the device refuses changes until
// it is opened again.
[[nodiscard]] std::string_view state_of(const ServedDevice& device);

[[nodiscard]] nlohmann::ordered_json describe_process(const Served& served);
// A line of the list.
[[nodiscard]] nlohmann::ordered_json describe_briefly(const ServedDevice& device);
// Everything.
[[nodiscard]] nlohmann::ordered_json describe(const Served& served, const ServedDevice& device);
// INFO and TABLE.
[[nodiscard]] nlohmann::ordered_json describe_table(const ServedDevice& device);
// The room where the device's own store is: the file system of its layer. The members are null while it is closed.
[[nodiscard]] nlohmann::ordered_json describe_space(const ServedDevice& device);

// Names in JSON and, with a prefix, in metrics: "read_bytes", "flush".
[[nodiscard]] std::string_view name_of(Counter counter);
[[nodiscard]] std::string_view name_of(RequestKind kind);

}  // namespace oxbow::control
