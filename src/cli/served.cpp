// SPDX-License-Identifier: Apache-2.0
#include "cli/served.h"

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <thread>

#include "control/client.h"
#include "jobs/run_directory.h"

namespace oxbow {
namespace {

constexpr std::chrono::milliseconds k_between_looks(500);

// Whether there is nothing more to wait for.
Result<bool> low_enough(const nlohmann::ordered_json& space, const std::string& name,
                        std::optional<std::uint64_t> below) {
  const auto refuse = [&](const char* why) {
    return std::unexpected(Error("cannot watch device", name, why));
  };
  if (space.at("state") == "closed") return refuse("it is closed");
  const auto& available = space.at("available");
  if (!below) return true;
  if (available.is_null()) return refuse("how much room there is for it is not known");
  return available.get<std::uint64_t>() <= *below;
}

}  // namespace

void add_served_name(CLI::App& command, std::string& name) {
  command.add_option("NAME", name, "The device, as oxbow list shows it.")->type_name("")->required();
}

Result<nlohmann::ordered_json> ask_served(const std::string& name, const std::string& rest) {
  const auto process = control::find_served(run_directory_path(), name);
  if (!process) return std::unexpected(process.error());
  return control::Client(*process).get("/v1/devices/" + name + rest);
}

Result<control::Record> find_served_process(const std::string& name) {
  return control::find_served(run_directory_path(), name);
}

Result<nlohmann::ordered_json> tell_served(const control::Record& process, const std::string& name,
                                           const std::string& rest, const nlohmann::ordered_json& body) {
  const control::Client client(process);
  const std::string path = "/v1/devices/" + name + rest;
  return body.is_null() ? client.post(path) : client.post(path, body);
}

Result<nlohmann::ordered_json> ask_space(const control::Record& process, const std::string& name,
                                         std::optional<std::uint64_t> below) {
  for (;;) {
    auto space = control::Client(process).get("/v1/devices/" + name + "/space");
    if (!space) return space;
    const auto enough = low_enough(*space, name, below);
    if (!enough) return std::unexpected(enough.error());
    if (*enough) return space;
    std::this_thread::sleep_for(k_between_looks);
  }
}

void add_device_or_layer(CLI::App& command, std::string& target) {
  command
      .add_option(
          "DEVICE", target,
          "NAME, a device as oxbow list shows it, or LAYER, a file that nobody serves; a file with the "
          "name of a device is ./LAYER.")
      ->type_name("")
      ->required();
}

Result<DeviceOrLayer> find_device_or_layer(const std::string& target) {
  auto served = find_served_process(target);
  if (served) return DeviceOrLayer{std::move(*served)};
  std::error_code error;
  if (std::filesystem::exists(target, error)) return DeviceOrLayer{};
  if (target.find('/') != std::string::npos)
    return std::unexpected(Error::from_errno("cannot open layer", target, ENOENT));
  return std::unexpected(
      Error(served.error().what(), target, served.error().why() + ", and there is no file of that name"));
}

}  // namespace oxbow
