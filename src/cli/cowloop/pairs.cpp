// SPDX-License-Identifier: Apache-2.0
#include "cli/cowloop/pairs.h"

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "control/client.h"
#include "jobs/run_directory.h"
#include "os/absolute_path.h"
#include "os/file_identity.h"

namespace oxbow::cowloop_commands {
namespace {

using Json = nlohmann::ordered_json;

// The pair of which the device is made; empty when it is made of something else.
Result<std::optional<Pair>> pair_of(const control::Record& process, const std::string& name) {
  const auto device = control::Client(process).get("/v1/devices/" + name);
  if (!device) return std::unexpected(device.error());
  Pair pair{process, name, "", device->at("source").get<std::string>(), "", ""};
  for (const Json& uri : device->at("uris")) {
    constexpr std::string_view k_device = "file:///dev/";
    const auto text = uri.get<std::string>();
    if (text.starts_with(k_device)) pair.device = text.substr(std::string_view("file://").size());
  }
  for (const Json& line : device->at("table")) {
    if (line.at("target") != "cowloop") continue;
    pair.cowfile = line.at("chain").at(0).at("store").get<std::string>();
    pair.base = line.at("chain").at(1).at("store").get<std::string>();
    return pair;
  }
  // One that was closed, or could not be opened again, has another table meanwhile.
  const Json& state = device->at("state");
  if ((state == "closed" || state == "failed") && pair.source.starts_with("--cowloop ")) return pair;
  return std::nullopt;
}

bool has_cowfile(const Pair& pair, const std::string& path) {
  if (!pair.cowfile.empty()) {
    const auto wanted = identify_path(path.c_str());
    const auto served = identify_path(pair.cowfile.c_str());
    return wanted && served && wanted->same_file(*served);
  }
  // There may be no file now: the source ends with the path that it had.
  std::error_code error;
  const auto whole = std::filesystem::weakly_canonical(absolute_path(path), error).string();
  return pair.source.ends_with(" " + absolute_path(path)) || (!error && pair.source.ends_with(" " + whole));
}

}  // namespace

Result<Pairs> served_pairs() {
  const auto records = control::list_records(run_directory_path());
  if (!records) return std::unexpected(records.error());
  Pairs pairs;
  for (const control::Record& process : *records) {
    for (const std::string& name : process.names) {
      auto pair = pair_of(process, name);
      if (!pair) {
        pairs.unknown.push_back(pair.error());
      } else if (*pair) {
        pairs.found.push_back(std::move(**pair));
      }
    }
  }
  return pairs;
}

Result<Pair> find_pair(const std::string& word) {
  if (const auto process = control::find_served(run_directory_path(), word)) {
    auto pair = pair_of(*process, word);
    if (!pair) return std::unexpected(pair.error());
    if (!*pair) return std::unexpected(Error("cannot use device", word, "it is not a cowloop pair"));
    return std::move(**pair);
  }
  auto pairs = served_pairs();
  if (!pairs) return std::unexpected(pairs.error());
  const auto found = std::ranges::find_if(
      pairs->found, [&](const Pair& pair) { return pair.device == word || has_cowfile(pair, word); });
  if (found != pairs->found.end()) return std::move(*found);
  if (!pairs->unknown.empty()) return std::unexpected(std::move(pairs->unknown.front()));
  return std::unexpected(Error("no such cowdevice", word,
                               "neither the name of a served pair nor its cowfile; oxbow list shows names"));
}

Result<void> ask(const Pair& pair, const std::string& request) {
  const auto answer = control::Client(pair.process).post("/v1/devices/" + pair.name + "/" + request);
  if (!answer) return std::unexpected(answer.error());
  return {};
}

}  // namespace oxbow::cowloop_commands
