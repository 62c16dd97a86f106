// SPDX-License-Identifier: Apache-2.0
#include "cli/device_arguments.h"

#include <fcntl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>

#include "cli/command.h"
#include "control/device_name.h"
#include "os/absolute_path.h"
#include "os/fd.h"
#include "os/read_file.h"

namespace oxbow {
namespace {

constexpr std::size_t k_largest_table = std::size_t{64} << 20U;

Result<TableSpec> read_table(int fd, const std::string& name) {
  auto text = read_all(fd, "cannot read table", name, k_largest_table);
  if (!text) return std::unexpected(text.error());
  return TableSpec{std::move(*text), name};
}

}  // namespace

Result<TableSpec> open_table(const std::string& path) {
  if (path == "-") return read_table(STDIN_FILENO, "standard input");
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return std::unexpected(Error::from_errno("cannot open table", path, errno));
  return read_table(fd.get(), path);
}

namespace {

void add_layer_arguments(CLI::App& command, DeviceArguments& arguments) {
  command
      .add_option("LAYER", arguments.layer,
                  "An oxbow layer. What is below it is what the layer itself has recorded.")
      ->type_name("");
  command
      .add_option("--base", arguments.base,
                  "With --overlay: the image that the layer is over. It is only ever read.")
      ->type_name("IMAGE");
  command
      .add_option("--overlay", arguments.overlay,
                  "With --base: the layer, which is created when it is not there yet.")
      ->type_name("LAYER");
  add_base_format_option(command, arguments.base_kind)->needs("--base");
  add_accept_base_flag(command, arguments.accept_base);
  add_allow_base_option(command, arguments.allow_bases);
  add_discard_live_flag(command, arguments.discard_live);
  command.get_option("--base")->needs("--overlay");
  command.get_option("--overlay")->needs("--base");
}

}  // namespace

void add_device_arguments(CLI::App& command, DeviceArguments& arguments) {
  add_layer_arguments(command, arguments);
  add_size_option(
      command, "--ram", [&](std::uint64_t size) { arguments.ram = size; }, "SIZE",
      "A RAM disk of that size; its contents are gone when it ends.");
  command.add_flag("--prealloc", arguments.preallocate, "With --ram: take all of its memory at once.");
  add_size_option(
      command, "--budget", [&](std::uint64_t budget) { arguments.budget = budget; }, "SIZE",
      "With --ram: the memory that its contents may take; writes that need more find no room. "
      "Without it, its size is the limit, or the memory that is available where that is less.");
  command
      .add_option("--file", arguments.file,
                  "A regular file or block device, as it is. Writes go to the file itself.")
      ->type_name("PATH");
  add_size_option(
      command, "--offset", [&](std::uint64_t offset) { arguments.offset = offset; }, "SIZE",
      "With --file: the device starts at that byte of the file; 0 without it.");
  add_size_option(
      command, "--length", [&](std::uint64_t length) { arguments.length = length; }, "SIZE",
      "With --file: the device is that long; without it, it ends where the file does.");
  command
      .add_option("--table", arguments.table,
                  "A table of targets, as oxbow-table(7) describes it; - reads it from standard input.")
      ->type_name("FILE");
  command
      .add_option(
          "--cowloop", arguments.cowloop,
          "A pair of cowloop: a read-only file, which is only ever read, and the cowfile that has what was "
          "modified. The cowfile is created when it is not there yet, or is empty.")
      ->type_name("RDOFILE COWFILE")
      ->expected(2);
  command.add_flag("--repair", arguments.repair,
                   "With --cowloop: if the cowfile was not closed cleanly, and may lack blocks that were "
                   "written, look for them first, as oxbow repair does.");
  command.add_flag("--cowfile-32bit", arguments.layout_32,
                   "With --cowloop: create the cowfile in the layout of 32-bit machines.");
  command.get_option("--repair")->needs("--cowloop");
  command.get_option("--cowfile-32bit")->needs("--cowloop");
  command.get_option("--prealloc")->needs("--ram");
  command.get_option("--budget")->needs("--ram");
  command.get_option("--offset")->needs("--file");
  command.get_option("--length")->needs("--file");
}

namespace {

int devices_named(const DeviceArguments& arguments) noexcept {
  return int{!arguments.layer.empty()} + int{!arguments.overlay.empty()} + int{arguments.ram.has_value()} +
         int{!arguments.file.empty()} + int{!arguments.table.empty()} + int{!arguments.cowloop.empty()};
}

}  // namespace

bool names_a_device(const DeviceArguments& arguments) noexcept { return devices_named(arguments) != 0; }

void check_device_arguments(const DeviceArguments& arguments) {
  const int named = devices_named(arguments);
  if (named == 1) return;
  refuse_usage("DEVICE", std::string(named == 0 ? "none is named" : "more than one is named") +
                             "; it is exactly one of LAYER, --overlay, --ram, --file, --table, --cowloop");
}

Result<DeviceSpec> to_device_spec(const DeviceArguments& arguments) {
  if (!arguments.layer.empty()) return LayerSpec{arguments.layer};
  if (!arguments.overlay.empty()) return OverlaySpec{arguments.base, arguments.base_kind, arguments.overlay};
  if (arguments.ram) return RamSpec{*arguments.ram, arguments.preallocate, arguments.budget};
  if (!arguments.file.empty()) return FileSpec{arguments.file, arguments.offset, arguments.length};
  if (!arguments.cowloop.empty()) {
    return CowloopSpec{.base = arguments.cowloop[0],
                       .cowfile = arguments.cowloop[1],
                       .layout = arguments.layout_32 ? cowloop::Layout::bytes_4 : cowloop::Layout::bytes_8,
                       .repair = arguments.repair};
  }
  auto table = open_table(arguments.table);
  if (!table) return std::unexpected(table.error());
  return std::move(*table);
}

std::string source_text(const DeviceArguments& arguments) {
  if (!arguments.layer.empty()) return absolute_path(arguments.layer);
  if (!arguments.overlay.empty()) {
    return "--base " + absolute_path(arguments.base) + " --overlay " + absolute_path(arguments.overlay);
  }
  if (arguments.ram) return "--ram " + std::to_string(*arguments.ram);
  if (arguments.table == "-") return "--table -";
  if (!arguments.table.empty()) return "--table " + absolute_path(arguments.table);
  if (!arguments.cowloop.empty())
    return "--cowloop " + absolute_path(arguments.cowloop[0]) + " " + absolute_path(arguments.cowloop[1]);
  std::string text = "--file " + absolute_path(arguments.file);
  if (arguments.offset != 0) text += " --offset " + std::to_string(arguments.offset);
  if (arguments.length) text += " --length " + std::to_string(*arguments.length);
  return text;
}

std::string default_name(const DeviceArguments& arguments) {
  if (arguments.ram) return "ram";
  if (arguments.table == "-") return "table";
  const std::string cowfile = arguments.cowloop.empty() ? "" : arguments.cowloop[1];
  const std::string path = arguments.layer + arguments.overlay + arguments.file + arguments.table + cowfile;
  std::string name =
      std::filesystem::path(path).stem().string().substr(0, control::k_longest_device_name - 1);
  std::ranges::replace_if(name, [](char c) { return !control::fits_device_name(c); }, '_');
  if (name.empty() || name.front() == '.' || name.front() == '-') name.insert(0, 1, '_');
  return name;
}

}  // namespace oxbow
