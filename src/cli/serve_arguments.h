// SPDX-License-Identifier: Apache-2.0
#pragma once

// What `oxbow serve` is told, on its command line or in a file; the words are the same in both.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/cli11.h"
#include "cli/device_arguments.h"
#include "control/log_sink.h"

namespace oxbow {

// A device to serve. Thread safety: a value.
struct ServedDeviceArguments {
  DeviceArguments device;
  std::string name;  // empty: default_name
  std::string description;
  std::string fuse;   // the file that shows it; empty: none
  bool loop = false;  // as a loop device of the kernel's
  bool ublk = false;  // as a device of the kernel's ublk driver
  bool read_only = false;
  bool direct = false;
  bool no_ring = false;
  bool is_default = false;
  std::optional<std::uint32_t> on_demand;  // how many more RAM disks like it
  std::string origin;  // where a file says so ("vm.toml line 3"); empty on the command line
};

// An address to serve at. Thread safety: a value.
struct AddressArgument {
  std::string address;
  std::string origin;  // as above
};

// How to serve; what has no value was not said. Thread safety: a value.
struct ServerArguments {
  std::vector<AddressArgument> nbd;
  std::optional<bool> tcp_plaintext;
  std::optional<std::string> tls_certificates;  // a folder
  std::optional<std::string> tls_psk;           // a file
  std::optional<bool> tls_verify_peer;
  std::optional<std::uint32_t> connections;
  std::optional<std::uint32_t> handshake_limit;  // seconds
  std::optional<std::uint32_t> threads;
  std::optional<std::uint32_t> poll;  // microseconds
  std::optional<OnFull> on_full;
  std::optional<std::uint64_t> reserve;  // bytes
};

// What the process does besides. Thread safety: a value.
struct ProcessArguments {
  std::optional<control::LogFormat> log;
  std::optional<LogLevel> log_level;
  std::optional<std::string> log_file;
  std::optional<std::string> pid_file;
  std::optional<std::string> live;  // a folder, or "off"
};

// All of it. Thread safety: a value.
struct ServeArguments {
  std::string config;  // a file that says the rest
  std::vector<ServedDeviceArguments> devices;
  ServerArguments server;
  ProcessArguments process;
  bool daemon = false;
  bool attach =
      false;  // only as block devices of the kernel's, whose paths are printed; ends when they are detached
  std::optional<std::string> run;
};

constexpr std::uint32_t k_max_connections = 65'536;
constexpr std::uint32_t k_max_threads = 256;
constexpr std::uint32_t k_max_on_demand = 1'024;
constexpr std::uint32_t k_max_poll_us = 1'000'000;
constexpr std::uint32_t k_max_handshake_seconds = 3'600;

// Nothing when it is neither "human" nor "json".
[[nodiscard]] std::optional<OnFull> parse_on_full(std::string_view text);
[[nodiscard]] std::optional<control::LogFormat> parse_log_format(std::string_view text);
// Nothing when it is none of "debug", "info", "warning", "error".
[[nodiscard]] std::optional<LogLevel> parse_log_level(std::string_view text);

// Adds the options. `arguments` must outlive the parsing and has one device.
void add_serve_arguments(CLI::App& command, ServeArguments& arguments);

// Ends the parsing with a message where options contradict each other.
void check_serve_arguments(const CLI::App& command, ServeArguments& arguments);

// The same for `oxbow attach`, which makes block devices.
void add_attach_arguments(CLI::App& command, ServeArguments& arguments);
void check_attach_arguments(const CLI::App& command, ServeArguments& arguments);

// Why the options about TLS contradict each other, and which; nothing when they don't.
struct TlsContradiction {
  const char* option;
  const char* why;
};
[[nodiscard]] std::optional<TlsContradiction> tls_contradiction(const ServerArguments& server);

// What `stronger` says, and what only `weaker` does. Who the server is counts as one: certificates of the one
// never meet keys of the other.
[[nodiscard]] ServerArguments merged(ServerArguments stronger, ServerArguments weaker);
[[nodiscard]] ProcessArguments merged(ProcessArguments stronger, ProcessArguments weaker);

}  // namespace oxbow
