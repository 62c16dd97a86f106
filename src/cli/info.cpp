// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/cowfile.h"
#include "cli/size.h"
#include "formats/native/codec.h"
#include "jobs/layer_info.h"

namespace oxbow {
namespace {

using Json = nlohmann::ordered_json;

struct InfoArguments {
  std::string file;
  std::vector<std::string> allow_bases;
  bool json = false;
};

std::string time_text(std::int64_t ns) {
  const auto seconds = static_cast<std::time_t>(ns / 1'000'000'000);
  std::tm parts{};
  ::gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec);
}

const char* state_word(const native::Superblock& superblock) {
  return superblock.state == native::LayerState::clean ? "clean" : "in use";
}

const char* format_word(const ChainLink& link) {
  if (link.packed) return "packed";
  return link.layer ? "oxb" : "raw";
}

std::string to_json(const LayerInfo& info) {
  const native::Superblock& superblock = info.report.superblock;
  Json chain = Json::array();
  for (const ChainLink& link : info.chain) {
    Json each{{"file", link.path},
              {"format", format_word(link)},
              {"size", link.size_bytes},
              {"allocated", link.allocated_bytes}};
    if (!link.problem.empty()) each["problem"] = link.problem;
    chain.push_back(std::move(each));
  }
  Json all{{"file", info.chain.front().path},
           {"version", superblock.version},
           {"uuid", native::to_text(superblock.uuid)},
           {"created", time_text(superblock.created_ns)},
           {"size", superblock.size},
           {"max_size", superblock.max_size},
           {"cluster", std::uint64_t{1} << superblock.cluster_shift},
           {"clusters", native::cluster_count(superblock.size, superblock.cluster_shift)},
           {"data_clusters", info.report.data_clusters},
           {"zero_clusters", info.report.zero_clusters},
           {"allocated", info.chain.front().allocated_bytes},
           {"state", state_word(superblock)},
           {"epoch", superblock.epoch},
           {"damaged", info.report.damaged()},
           {"chain", std::move(chain)}};
  if (info.packed) {
    all["packed"] = {{"at", time_text(info.packed->packed_ns)},
                     {"bytes", info.packed->file_bytes},
                     {"frames", info.packed->frames},
                     {"frame", info.packed->frame_bytes}};
  }
  return all.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string bytes_text(std::uint64_t bytes) {
  return fmt::format("{} ({} bytes)", format_size(bytes), bytes);
}

std::string to_text(const LayerInfo& info) {
  const native::Superblock& superblock = info.report.superblock;
  const std::uint64_t cluster = std::uint64_t{1} << superblock.cluster_shift;
  std::string out;
  const auto line = [&](const char* name, const std::string& value) {
    out += fmt::format("{:<11}{}\n", name, value);
  };
  line("layer", info.chain.front().path);
  line("format", fmt::format("oxbow {}layer, version {}", info.packed ? "packed " : "", superblock.version));
  line("uuid", native::to_text(superblock.uuid));
  line("created", time_text(superblock.created_ns));
  line("size", bytes_text(superblock.size));
  line("cluster", format_size(cluster));
  line("data", fmt::format("{} clusters, {}", info.report.data_clusters,
                           bytes_text(info.report.data_clusters * cluster)));
  line("zero", fmt::format("{} clusters, {}", info.report.zero_clusters,
                           bytes_text(info.report.zero_clusters * cluster)));
  line("allocated", bytes_text(info.chain.front().allocated_bytes));
  if (info.packed) {
    line("packed", fmt::format("{}, {} in {} frames of {}", time_text(info.packed->packed_ns),
                               format_size(info.packed->file_bytes), info.packed->frames,
                               format_size(info.packed->frame_bytes)));
  }
  line("state", superblock.state == native::LayerState::clean ? "clean" : "in use, or not closed cleanly");
  if (info.report.damaged()) line("damage", "yes: oxbow check names it");
  out += "chain\n";
  for (std::size_t i = 0; i < info.chain.size(); ++i) {
    const ChainLink& link = info.chain[i];
    out += fmt::format("  {}  {}  {}\n", i, link.path,
                       !link.problem.empty()
                           ? "cannot be used: " + link.problem
                           : fmt::format("{}, {}, {} allocated",
                                         link.packed  ? "packed layer"
                                         : link.layer ? "layer"
                                                      : "raw",
                                         format_size(link.size_bytes), format_size(link.allocated_bytes)));
  }
  return out;
}

ExitStatus info(const InfoArguments& arguments) {
  if (is_packed_cowfile(arguments.file)) return show_cowfile(arguments.file, arguments.json);
  Queue queue;
  const auto bases = allowed_bases(arguments.allow_bases);
  if (!bases) return fail(bases.error());
  const auto found = layer_info(queue, arguments.file, *bases);
  if (!found) return fail(found.error());
  const auto printed = print(arguments.json ? to_json(*found) : to_text(*found));
  return printed ? ExitStatus::done : fail(printed.error());
}

}  // namespace

void add_info(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<InfoArguments>();
  CLI::App& command =
      add_command(app, "info", "Show the header of a layer or cowfile, its chain and its use of space",
                  "[--allow-base DIR] [--json] FILE");
  command.add_option("FILE", arguments->file, "The layer, or a cowfile of cowloop.")
      ->type_name("")
      ->required();
  add_allow_base_option(command, arguments->allow_bases);
  command.add_flag("--json", arguments->json, "Print JSON.");
  command.callback([arguments, &chosen] { chosen = [arguments] { return info(*arguments); }; });
}

}  // namespace oxbow
