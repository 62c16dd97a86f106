// SPDX-License-Identifier: Apache-2.0
#pragma once

// The words that name a DEVICE, the same in every command that opens one.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/cli11.h"
#include "jobs/open_device.h"

namespace oxbow {

// What was given on the command line. Thread safety: a value.
struct DeviceArguments {
  std::string layer;
  std::string base;
  std::string overlay;
  native::BaseKind base_kind = native::BaseKind::raw;
  bool accept_base = false;
  std::vector<std::string> allow_bases;
  bool discard_live = false;
  std::optional<std::uint64_t> ram;
  bool preallocate = false;
  std::optional<std::uint64_t> budget;
  std::string file;
  std::uint64_t offset = 0;
  std::optional<std::uint64_t> length;
  std::string table;
  std::vector<std::string> cowloop;  // the read-only file and the cowfile
  bool repair = false;
  bool layout_32 = false;
};

// Adds the options. `arguments` must outlive the parsing.
void add_device_arguments(CLI::App& command, DeviceArguments& arguments);

// Whether any device is named.
[[nodiscard]] bool names_a_device(const DeviceArguments& arguments) noexcept;

// Ends the parsing with a message unless exactly one device is named, with options that belong to it.
void check_device_arguments(const DeviceArguments& arguments);

// Reads the table, if it is one.
[[nodiscard]] Result<DeviceSpec> to_device_spec(const DeviceArguments& arguments);

// Reads the table in the file at `path`; - is standard input.
[[nodiscard]] Result<TableSpec> open_table(const std::string& path);

// The device in the words of the command line, for people: "--ram 1G", "/srv/w.oxb".
[[nodiscard]] std::string source_text(const DeviceArguments& arguments);

// A name for the device from what it is: the file's name without its extension, where it has one; only letters,
// digits and "._-", so that it can be part of a file's name.
[[nodiscard]] std::string default_name(const DeviceArguments& arguments);

}  // namespace oxbow
