// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/cowfile.h"
#include "cli/served.h"
#include "jobs/layer_info.h"
#include "jobs/map_device.h"
#include "jobs/open_device.h"

namespace oxbow {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t k_print_bytes = 65536;

struct MapArguments {
  std::string file;
  std::optional<std::string> base;  // of a cowfile
  bool accept_base = false;
  std::vector<std::string> allow_bases;
  bool discard_live = false;
  bool json = false;
};

// A line of the map.
struct MapLine {
  Range range;
  std::string state;
  std::string reads;
  unsigned layer;
  std::string file;  // empty: none
};

// Prints extents as they come, a line each. Thread safety: none.
class MapPrinter {
 public:
  explicit MapPrinter(bool json) : json_(json) {
    if (!json_)
      text_ = fmt::format("{:>16} {:>16}  {:<6}  {:<5}  {}\n", "START", "LENGTH", "STATE", "READS", "FROM");
  }

  [[nodiscard]] Result<void> add(const MapLine& line) {
    if (json_) {
      const Json json{{"start", line.range.offset}, {"length", line.range.length}, {"state", line.state},
                      {"reads", line.reads},        {"layer", line.layer},         {"file", line.file}};
      text_ += (any_ ? ",\n " : "[") + json.dump(-1, ' ', false, Json::error_handler_t::replace);
    } else {
      text_ += fmt::format("{:>16} {:>16}  {:<6}  {:<5}  {}\n", line.range.offset, line.range.length,
                           line.state, line.reads, line.file.empty() ? "-" : line.file);
    }
    any_ = true;
    return text_.size() < k_print_bytes ? Result<void>{} : flush();
  }
  [[nodiscard]] Result<void> finish() {
    if (json_) text_ += any_ ? "]\n" : "[]\n";
    return flush();
  }

 private:
  [[nodiscard]] Result<void> flush() {
    const std::string text = std::exchange(text_, {});
    return print(text);
  }

  bool json_;
  bool any_ = false;
  std::string text_;
};

// Of a layer: those that its record names.
Result<std::vector<std::string>> chain_of(Queue& queue, const MapArguments& arguments) {
  if (arguments.base) return std::vector{arguments.file, *arguments.base};
  const auto bases = allowed_bases(arguments.allow_bases);
  if (!bases) return std::unexpected(bases.error());
  const auto chain = layer_chain(queue, arguments.file, *bases);
  if (!chain) return std::unexpected(chain.error());
  std::vector<std::string> files;
  for (const ChainLink& link : *chain) files.push_back(link.path);
  return files;
}

// Which options mean nothing for the file that was given.
Result<void> refuse_options(const MapArguments& arguments, bool cowfile) {
  if (!cowfile) {
    return refuse_option(arguments.base ? "--base" : "", "cannot map layer", arguments.file, "cowfiles");
  }
  const std::string wrong = arguments.accept_base            ? "--accept-base"
                            : !arguments.allow_bases.empty() ? "--allow-base"
                                                             : "";
  if (auto refused = refuse_option(wrong, "cannot map cowfile", arguments.file, "layers"); !refused)
    return refused;
  if (arguments.base) return {};
  return std::unexpected(Error("cannot map cowfile", arguments.file,
                               "it doesn't say what its read-only file is: name it with --base"));
}

ExitStatus map_file(const MapArguments& arguments, MapPrinter& printer) {
  const bool cowfile = is_cowfile(arguments.file);
  if (auto refused = refuse_options(arguments, cowfile); !refused) return fail(refused.error());
  Queue queue;
  DeviceSpec spec = LayerSpec{arguments.file};
  if (cowfile) spec = CowloopSpec{.base = *arguments.base, .cowfile = arguments.file};
  const auto opened = open_device(queue, spec,
                                  {.name = arguments.file,
                                   .writable = false,
                                   .accept_base = arguments.accept_base,
                                   .allow_bases = arguments.allow_bases,
                                   .live = {.discard = arguments.discard_live}});
  if (!opened) return fail(opened.error());
  const auto files = chain_of(queue, arguments);
  if (!files) return fail(files.error());
  auto mapped = map_device(queue, *opened->device, [&](const MappedExtent& extent) {
    return printer.add({.range = extent.range,
                        .state = state_word(extent),
                        .reads = word(extent.kind),
                        .layer = extent.layer,
                        .file = extent.layer < files->size() ? (*files)[extent.layer] : ""});
  });
  if (mapped) mapped = printer.finish();
  const IoStatus closed = opened->device->close(queue);
  if (!mapped) return fail(mapped.error());
  if (!closed.ok())
    return fail(Error::from_errno("cannot close device", arguments.file, closed.error_number()));
  return ExitStatus::done;
}

// Of a device that is served, by asking its process part by part.
Result<void> map_served(const control::Record& process, const std::string& name, MapPrinter& printer) {
  for (Json start = 0; !start.is_null();) {
    const auto part = tell_served(process, name, "/map", {{"start", start}});
    if (!part) return std::unexpected(part.error());
    for (const Json& extent : part->at("extents")) {
      auto added = printer.add({.range = {extent.at("start"), extent.at("length")},
                                .state = extent.at("state"),
                                .reads = extent.at("reads"),
                                .layer = extent.at("layer"),
                                .file = extent.at("file")});
      if (!added) return added;
    }
    start = part->at("next");
  }
  return printer.finish();
}

// The option that is for files and was given; empty: none.
std::string option_for_files(const MapArguments& arguments) {
  if (arguments.base) return "--base";
  if (arguments.accept_base) return "--accept-base";
  if (!arguments.allow_bases.empty()) return "--allow-base";
  return arguments.discard_live ? "--discard-live" : "";
}

ExitStatus map(const MapArguments& arguments) {
  MapPrinter printer(arguments.json);
  if (const auto process = find_served_process(arguments.file)) {
    auto done = refuse_option(option_for_files(arguments), "cannot map device", arguments.file, "files");
    if (done) done = map_served(*process, arguments.file, printer);
    return done ? ExitStatus::done : fail(done.error());
  }
  return map_file(arguments, printer);
}

}  // namespace

void add_map(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<MapArguments>();
  CLI::App& command =
      add_command(app, "map", "Show which parts of a device, layer or cowfile are its own",
                  "[--accept-base] [--allow-base DIR] [--base IMAGE] [--discard-live] [--json] DEVICE");
  command
      .add_option(
          "DEVICE", arguments->file,
          "NAME, a device as oxbow list shows it, or a file that nobody serves: a layer, or a cowfile of "
          "cowloop; a file with the name of a device is ./FILE.")
      ->type_name("")
      ->required();
  add_accept_base_flag(command, arguments->accept_base);
  add_allow_base_option(command, arguments->allow_bases);
  add_cowfile_base_option(command, arguments->base, "from which the others come.");
  add_discard_live_flag(command, arguments->discard_live);
  command.add_flag("--json", arguments->json, "Print JSON.");
  command.callback([arguments, &chosen] { chosen = [arguments] { return map(*arguments); }; });
}

}  // namespace oxbow
