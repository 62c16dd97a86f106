// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/cowfile.h"
#include "cli/findings.h"
#include "cli/progress.h"
#include "jobs/check_data.h"
#include "jobs/check_layer.h"
#include "stores/file/file_store.h"
#include "targets/cow/holder.h"

namespace oxbow {
namespace {

using Json = nlohmann::ordered_json;

struct CheckArguments {
  std::string file;
  bool data = false;
  bool accept_base = false;
  std::vector<std::string> allow_bases;
  std::optional<std::string> base;  // of a cowfile
  bool json = false;
};

// What of the data and of the chain is not as it should be, behind what was found already.
Result<void> add_data_findings(Queue& queue, const CheckArguments& arguments, CheckReport& report) {
  auto bases = allowed_bases(arguments.allow_bases);
  if (!bases) return std::unexpected(bases.error());
  ProgressBar bar("reading");
  const auto found =
      check_data(queue, arguments.file,
                 {.bases = std::move(*bases), .accept_base = arguments.accept_base, .progress = bar.feed()});
  bar.clear();
  if (!found) return std::unexpected(found.error());
  report.findings.insert(report.findings.end(), found->begin(), found->end());
  return {};
}

// Held shared, so that nobody writes meanwhile. `not_read` is why the data was not.
Result<CheckReport> check_file(const CheckArguments& arguments, std::optional<Error>& not_read) {
  Queue queue;
  const std::string& path = arguments.file;
  const auto store =
      open_when_let_go(queue, path, [&] { return FileStore::open(path, {.lock = LockMode::shared}); });
  if (!store) return std::unexpected(store.error());
  auto report = check_layer(queue, **store);
  if (!report || report->unusable || !arguments.data) return report;
  if (auto added = add_data_findings(queue, arguments, *report); !added) not_read = added.error();
  return report;
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
  if (is_cowfile(arguments.file))
    return check_cowfile(arguments.file, arguments.base, arguments.data, arguments.json);
  if (auto refused =
          refuse_option(arguments.base ? "--base" : "", "cannot check layer", arguments.file, "cowfiles");
      !refused)
    return fail(refused.error());
  std::optional<Error> not_read;
  const auto report = check_file(arguments, not_read);
  if (!report) return fail(report.error());
  const auto printed = print(arguments.json ? to_json(*report, arguments.file) : to_text(*report));
  if (!printed) return fail(printed.error());
  if (report->unusable) return fail(Error(report->unusable->what(), arguments.file, report->unusable->why()));
  if (not_read) return fail(*not_read);
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
  CLI::App& command = add_command(app, "check", "Verify the metadata of a layer or cowfile",
                                  "[--data] [--accept-base] [--allow-base DIR] [--base IMAGE] [--json] FILE");
  command.add_option("FILE", arguments->file, "The layer, or a cowfile of cowloop.")
      ->type_name("")
      ->required();
  command.add_flag(
      "--data", arguments->data,
      "Read all data of the layer and of the layers below it too, open the whole chain, and compare each "
      "base with the SHA-256 that oxbow create --hash recorded.");
  add_accept_base_flag(command, arguments->accept_base);
  add_allow_base_option(command, arguments->allow_bases);
  add_cowfile_base_option(command, arguments->base, "to be compared with what the cowfile says of it.");
  command.add_flag("--json", arguments->json, "Print JSON.");
  command.callback([arguments, &chosen] { chosen = [arguments] { return check(*arguments); }; });
}

}  // namespace oxbow
