// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/size.h"
#include "control/client.h"
#include "exports/ublk/own_devices.h"
#include "jobs/run_directory.h"

namespace oxbow {
namespace {

using Json = nlohmann::ordered_json;

struct ListArguments {
  bool json = false;
};

// What a process serves, each with the process's number. Of one that doesn't answer, the names.
Json devices_of(const control::Record& process, ExitStatus& status) {
  Json all = Json::array();
  const auto answer = control::Client(process).get("/v1/devices");
  if (answer && answer->contains("devices")) {
    for (const Json& device : (*answer)["devices"]) all.push_back(device);
  } else {
    const Error unexpected("cannot ask process", std::to_string(process.pid), "its answer is not a list");
    status = fail(answer ? unexpected : answer.error());
    for (const std::string& name : process.names) {
      all.push_back({{"name", name},
                     {"state", "no answer"},
                     {"size", nullptr},
                     {"source", nullptr},
                     {"uris", Json::array()}});
    }
  }
  for (Json& device : all) {
    device["pid"] = process.pid;
    device["socket"] = process.socket;
  }
  return all;
}

// Block devices of processes that were killed; what nobody uses is removed.
void add_waiting(const std::string& directory, Json& devices, ExitStatus& status) {
  const auto waiting = ublk::clean_up(directory);
  if (!waiting) {
    status = fail(waiting.error());
    return;
  }
  for (const ublk::Waiting& each : *waiting) {
    devices.push_back({{"name", each.name},
                       {"state", "waiting"},
                       {"size", nullptr},
                       {"source", nullptr},
                       {"uris", {"file://" + each.path}},
                       {"pid", nullptr},
                       {"socket", nullptr}});
  }
}

std::string to_text(const Json& devices) {
  std::size_t widest = 4;
  for (const Json& device : devices) widest = std::max(widest, device.at("name").get<std::string>().size());
  std::string out =
      fmt::format("{:<{}}  {:<9}  {:>6}  {:>8}  {}\n", "NAME", widest, "STATE", "SIZE", "PID", "URI");
  for (const Json& device : devices) {
    const Json& size = device.at("size");
    const Json& uris = device.at("uris");
    const Json& pid = device.at("pid");
    out += fmt::format("{:<{}}  {:<9}  {:>6}  {:>8}  {}\n", device.at("name").get<std::string>(), widest,
                       device.at("state").get<std::string>(),
                       size.is_null() ? "-" : format_size(size.get<std::uint64_t>()),
                       pid.is_null() ? "-" : std::to_string(pid.get<std::uint64_t>()),
                       uris.empty() ? "-" : uris.front().get<std::string>());
  }
  return out;
}

ExitStatus list(const ListArguments& arguments) {
  const auto directory = run_directory_path();
  const auto records = control::list_records(directory);
  if (!records) return fail(records.error());
  ExitStatus status = ExitStatus::done;
  Json devices = Json::array();
  for (const control::Record& process : *records) {
    for (Json& device : devices_of(process, status)) devices.push_back(std::move(device));
  }
  add_waiting(directory, devices, status);
  const auto printed = print(
      arguments.json ? devices.dump(2, ' ', false, Json::error_handler_t::replace) + "\n" : to_text(devices));
  return printed ? status : fail(printed.error());
}

}  // namespace

void add_list(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<ListArguments>();
  CLI::App& command = add_command(app, "list", "List the devices that are being served", "[--json]");
  command.add_flag("--json", arguments->json, "Print JSON.");
  command.callback([arguments, &chosen] { chosen = [arguments] { return list(*arguments); }; });
}

}  // namespace oxbow
