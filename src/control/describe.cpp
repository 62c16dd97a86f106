// SPDX-License-Identifier: Apache-2.0
#include "control/describe.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>

#include "control/kernel_devices.h"
#include "device/device.h"
#include "device/latency.h"
#include "exports/fuse/file_export.h"
#include "exports/nbd/server.h"
#include "jobs/reopen_device.h"

namespace oxbow::control {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, k_counters> k_counter_names = {
    "reads",          "read_bytes",      "writes",  "written_bytes", "zeroes",       "zeroed_bytes",
    "discards",       "discarded_bytes", "flushes", "flush_rounds",  "filled_bytes", "stored_bytes",
    "metadata_bytes", "waits",           "errors",  "own_reads",     "below_reads"};

constexpr std::array<std::string_view, k_request_kinds> k_kind_names = {"read", "write", "change", "flush"};

Json or_null(const std::optional<std::uint64_t>& value) { return value ? Json(*value) : Json(nullptr); }

Json describe_statistics(const StatisticsSnapshot& counted) {
  Json json;
  for (std::size_t i = 0; i < k_counters; ++i) json[std::string(k_counter_names[i])] = counted.values[i];
  const std::uint64_t written = counted[Counter::written_bytes];
  const std::uint64_t stored = counted[Counter::stored_bytes] + counted[Counter::metadata_bytes];
  json["write_amplification"] =
      written == 0 ? Json(nullptr) : Json(static_cast<double>(stored) / static_cast<double>(written));
  return json;
}

Json describe_latency(const LatencySnapshot& counted) {
  Json json;
  for (std::size_t kind = 0; kind < k_request_kinds; ++kind) {
    const LatencySnapshot::Kind& each = counted.kinds[kind];
    json[std::string(k_kind_names[kind])] = {{"count", each.count()},
                                             {"total_ns", each.total_ns},
                                             {"median_us", each.quantile_us(0.5)},
                                             {"p99_us", each.quantile_us(0.99)},
                                             {"buckets", each.buckets}};
  }
  return json;
}

Json describe_client(const nbd::ClientStatus& client) {
  Json contexts = Json::array();
  if (client.allocation) contexts.push_back("base:allocation");
  if (client.depth) contexts.push_back("qemu:allocation-depth");
  const bool tcp = !client.peer.address.empty();
  Json statistics;
  for (std::size_t kind = 0; kind < k_request_kinds; ++kind) {
    statistics[std::string(k_kind_names[kind])] = {{"requests", client.latency.kinds[kind].count()},
                                                   {"bytes", client.bytes[kind]}};
  }
  statistics["other"] = {{"requests", client.other_requests}};
  statistics["errors"] = client.errors;
  return {{"id", client.id},
          {"peer", client.peer.text()},
          {"pid", tcp ? Json(nullptr) : Json(client.peer.pid)},
          {"uid", tcp ? Json(nullptr) : Json(client.peer.uid)},
          {"since", time_text(client.since)},
          {"export", client.export_name},
          {"tls", client.encrypted},
          {"structured_replies", client.structured_replies},
          {"contexts", std::move(contexts)},
          {"statistics", std::move(statistics)},
          {"latency", describe_latency(client.latency)}};
}

std::vector<nbd::ClientStatus> users_of(const Served& served, const ServedDevice& device) {
  if (served.server == nullptr) return {};
  std::vector<nbd::ClientStatus> users = served.server->clients();
  std::erase_if(users, [&](const auto& client) { return !client.serving || client.device != device.device; });
  return users;
}

Json describe_clients(const Served& served, const ServedDevice& device) {
  Json json = Json::array();
  for (const nbd::ClientStatus& client : users_of(served, device)) json.push_back(describe_client(client));
  return json;
}

Json describe_chain(const std::vector<ChainPart>& chain) {
  Json json = Json::array();
  for (const ChainPart& part : chain) {
    json.push_back({{"store", part.store.name},
                    {"format", part.format},
                    {"size", part.size_bytes},
                    {"cluster", part.cluster_bytes == 0 ? Json(nullptr) : Json(part.cluster_bytes)},
                    {"allocated", or_null(part.store.allocated_bytes)},
                    {"free", or_null(part.store.free_bytes)},
                    {"live", part.live.empty() ? Json(nullptr) : Json(part.live)},
                    {"without_live", part.without_live.empty() ? Json(nullptr) : Json(part.without_live)},
                    {"used", or_null(part.used_clusters)},
                    {"state", part.state.empty() ? Json(nullptr) : Json(part.state)}});
  }
  return json;
}

Json describe_room(const std::optional<RoomStatus>& room) {
  if (!room) return nullptr;
  return {{"since", time_text(room->since)},
          {"reason", std::strerror(room->reason)},
          {"changes", room->changes},
          {"flushes", room->flushes}};
}

Json failure_of(const ServedDevice& device) {
  if (device.files != nullptr) {
    const DeviceFiles::Standing standing = device.files->standing();
    if (standing.state == DeviceFiles::State::broken) return standing.why;
  }
  const int failure = device.device->failure();
  return failure == 0 ? Json(nullptr) : Json(std::strerror(failure));
}

// What it is made from now, which a table that was loaded has changed.
std::string source_of(const ServedDevice& device) {
  const std::string loaded = device.files == nullptr ? std::string() : device.files->standing().source;
  return loaded.empty() ? device.source : "--table " + loaded;
}

std::string line_text(const TargetLine& line, const std::string& rest) {
  return fmt::format("{} {} {}{}{}", line.start, line.length, line.status.name, rest.empty() ? "" : " ",
                     rest);
}

Json describe_loaded(const ServedDevice& device) {
  const std::shared_ptr<Target> loaded = device.files == nullptr ? nullptr : device.files->standing().loaded;
  if (loaded == nullptr) return nullptr;
  Json lines = Json::array();
  for (const TargetLine& line : loaded->lines()) lines.push_back(line_text(line, line.status.table));
  return lines;
}

}  // namespace

std::string time_text(std::chrono::system_clock::time_point time) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(time);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

std::vector<std::string> uris_of(const ServedDevice& device) {
  std::vector<std::string> uris = device.uris;
  if (device.kernel != nullptr) {
    for (const std::string& each : device.kernel->paths()) uris.push_back("file://" + each);
  }
  return uris;
}

std::string kernel_users_text(const ServedDevice& device) {
  return device.kernel == nullptr ? std::string() : device.kernel->users();
}

std::string users_text(const Served& served, const ServedDevice& device) {
  constexpr std::size_t most_named = 4;
  const std::vector<nbd::ClientStatus> users = users_of(served, device);
  const std::uint64_t opens = device.file == nullptr ? 0 : device.file->opens();
  if (opens > 0) return fmt::format("{} is open", device.file->uri());
  if (std::string kernel = kernel_users_text(device); !kernel.empty()) return kernel;
  if (users.empty()) return {};
  std::string text =
      users.size() == 1 ? "1 client has it open: " : fmt::format("{} clients have it open: ", users.size());
  for (std::size_t i = 0; i < std::min(users.size(), most_named); ++i)
    text += (i == 0 ? "" : ", ") + users[i].peer.text();
  if (users.size() > most_named) text += ", ...";
  return text;
}

std::string_view state_of(const ServedDevice& device) {
  if (device.files != nullptr) {
    const DeviceFiles::State state = device.files->standing().state;
    if (state == DeviceFiles::State::closed) return "closed";
    if (state == DeviceFiles::State::broken) return "failed";
    if (device.files->standing().suspended_since) return "suspended";
  }
  if (device.device->failure() != 0) return "failed";
  if (device.device->room()) return "paused";
  return device.read_only || !device.device->writable() ? "read-only" : "writable";
}

std::string_view name_of(Counter counter) { return k_counter_names[static_cast<std::size_t>(counter)]; }
std::string_view name_of(RequestKind kind) { return k_kind_names[static_cast<std::size_t>(kind)]; }

Json describe_process(const Served& served) {
  return {{"pid", ::getpid()}, {"version", OXBOW_VERSION}, {"started", time_text(served.started)}};
}

Json describe_briefly(const ServedDevice& device) {
  return {{"name", device.name},
          {"state", state_of(device)},
          {"size", device.device->size()},
          {"source", source_of(device)},
          {"uris", uris_of(device)}};
}

Json describe(const Served& served, const ServedDevice& device) {
  Json json = describe_briefly(device);
  json["failure"] = failure_of(device);
  json["paused"] = describe_room(device.device->room());
  const auto standing = device.files == nullptr ? DeviceFiles::Standing() : device.files->standing();
  json["suspended"] = standing.suspended_since ? Json(time_text(*standing.suspended_since)) : Json(nullptr);
  json["loaded"] = standing.loaded == nullptr ? Json(nullptr) : Json(standing.loaded_source);
  json["process"] = describe_process(served);
  Json& table = json["table"] = Json::array();
  for (const TargetLine& line : device.device->target()->lines()) {
    table.push_back({{"start", line.start},
                     {"length", line.length},
                     {"target", line.status.name},
                     {"info", line.status.info},
                     {"arguments", line.status.table},
                     {"chain", describe_chain(line.chain)}});
  }
  json["statistics"] = describe_statistics(device.device->statistics());
  json["latency"] = describe_latency(device.device->latencies());
  json["clients"] = describe_clients(served, device);
  return json;
}

Json describe_table(const ServedDevice& device) {
  Json info = Json::array();
  Json table = Json::array();
  for (const TargetLine& line : device.device->target()->lines()) {
    info.push_back(line_text(line, line.status.info));
    table.push_back(line_text(line, line.status.table));
  }
  return {{"name", device.name},
          {"info", std::move(info)},
          {"table", std::move(table)},
          {"loaded", describe_loaded(device)}};
}

Json describe_space(const ServedDevice& device) {
  Json json{{"name", device.name}, {"state", state_of(device)}};
  StoreFacts facts;
  for (const TargetLine& line : device.device->target()->lines()) {
    if (line.chain.empty()) continue;
    facts = line.chain.front().store;
    break;
  }
  json["store"] = facts.name.empty() ? Json(nullptr) : Json(facts.name);
  json["total"] = or_null(facts.total_bytes);
  json["available"] = or_null(facts.free_bytes);
  return json;
}

}  // namespace oxbow::control
