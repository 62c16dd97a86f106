// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/findings.h"
#include "jobs/check_layer.h"
#include "stores/file/file_store.h"
#include "targets/cow/holder.h"

namespace oxbow {
namespace {

using Json = nlohmann::ordered_json;

struct CheckArguments {
  std::string file;
  bool json = false;
};

// Held shared, so that nobody writes meanwhile.
Result<CheckReport> check_file(const std::string& path) {
  Queue queue;
  const auto store =
      open_when_let_go(queue, path, [&] { return FileStore::open(path, {.lock = LockMode::shared}); });
  if (!store) return std::unexpected(store.error());
  return check_layer(queue, **store);
}

std::string to_json(const CheckReport& report, const std::string& path) {
  Json findings = Json::array();
  for (const Finding& finding : report.findings) findings.push_back(to_json(finding));
  const Json all{{"file", path},
                 {"damaged", report.damaged()},
                 {"redundancy_lost", report.redundancy_lost()},
                 {"state_pages", report.pages_checked},
                 {"ring_records", report.ring_records},
                 {"data_clusters", report.data_clusters},
                 {"zero_clusters", report.zero_clusters},
                 {"findings", std::move(findings)}};
  return all.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string to_text(const CheckReport& report) {
  std::string out;
  for (const Finding& finding : report.findings)
    out += to_text(finding, report.superblock.cluster_shift) + "\n";
  if (report.unusable) return out;
  return out + fmt::format(
                   "checked: 2 superblocks, 2 flush records, {} state pages; {} data clusters, {} zero "
                   "clusters\n",
                   report.pages_checked, report.data_clusters, report.zero_clusters);
}

std::string places(const CheckReport& report, Gravity gravity) {
  const auto count = std::ranges::count(report.findings, gravity, &Finding::gravity);
  return fmt::format("{} {}", count, count == 1 ? "place" : "places");
}

ExitStatus check(const CheckArguments& arguments) {
  const auto report = check_file(arguments.file);
  if (!report) return fail(report.error());
  const auto printed = print(arguments.json ? to_json(*report, arguments.file) : to_text(*report));
  if (!printed) return fail(printed.error());
  if (report->unusable) return fail(Error(report->unusable->what(), arguments.file, report->unusable->why()));
  if (report->damaged()) {
    return fail(Error("checked layer", arguments.file,
                      fmt::format("it is damaged in {}", places(*report, Gravity::damage))));
  }
  if (!report->redundancy_lost()) return ExitStatus::done;
  (void)fail(
      Error("checked layer", arguments.file,
            fmt::format("nothing is lost, but in {} a copy is bad and only the other is left; oxbow repair "
                        "mends it",
                        places(*report, Gravity::redundancy))));
  return ExitStatus::redundancy_lost;
}

}  // namespace

void add_check(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<CheckArguments>();
  CLI::App& command = add_command(app, "check", "Verify a layer's metadata", "[--json] FILE");
  command.add_option("FILE", arguments->file, "The layer.")->type_name("")->required();
  command.add_flag("--json", arguments->json, "Print JSON.");
  command.callback([arguments, &chosen] { chosen = [arguments] { return check(*arguments); }; });
}

}  // namespace oxbow
