// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the commands share that ask a process about a device that it serves.

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "cli/cli11.h"
#include "control/registry.h"
#include "oxbow/error.h"

namespace oxbow {

// Adds the argument NAME.
void add_served_name(CLI::App& command, std::string& name);

// GET of the device's path, `rest` after its name, from the process that serves it.
[[nodiscard]] Result<nlohmann::ordered_json> ask_served(const std::string& name, const std::string& rest);

// The process that serves NAME.
[[nodiscard]] Result<control::Record> find_served_process(const std::string& name);
// POST of `body`, if it is not null, to the device's path; waits for the answer however long it takes.
[[nodiscard]] Result<nlohmann::ordered_json> tell_served(const control::Record& process,
                                                         const std::string& name, const std::string& rest,
                                                         const nlohmann::ordered_json& body);

// GET of the room that the device has; with `below`, in bytes, once no more than that is available, which is looked at
// twice a second. Fails when the device is closed, or its process gone.
[[nodiscard]] Result<nlohmann::ordered_json> ask_space(const control::Record& process,
                                                       const std::string& name,
                                                       std::optional<std::uint64_t> below);

// Adds the argument NAME | LAYER.
void add_device_or_layer(CLI::App& command, std::string& target);
// What NAME | LAYER is. Thread safety: a value.
struct DeviceOrLayer {
  std::optional<control::Record> served;  // by that process; else it is a layer's path
};
// A served device where there is one of that name, else a file where there is one.
[[nodiscard]] Result<DeviceOrLayer> find_device_or_layer(const std::string& target);

}  // namespace oxbow
