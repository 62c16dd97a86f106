// SPDX-License-Identifier: Apache-2.0
#include "cli/serve_arguments.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <memory>
#include <utility>

#include "cli/command.h"
#include "control/device_name.h"

namespace oxbow {
namespace {

// The options that say something about the DEVICE of the command line.
constexpr std::array k_of_device{"--name",       "--description", "--fuse",       "--loop",
                                 "--ublk",       "--read-only",   "--direct",     "--no-ring",
                                 "--on-demand",  "--accept-base", "--allow-base", "--discard-live",
                                 "--base-format"};

constexpr std::uint32_t k_default_poll_us = 50;

// Nothing where it is no number from 1 to `most`.
std::optional<std::uint32_t> parse_number(const std::string& text, std::uint32_t most) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value == 0 || value > most)
    return std::nullopt;
  return value;
}

void add_number(CLI::App& command, const std::string& name, std::optional<std::uint32_t>& number,
                std::uint32_t most, const std::string& value_name, const std::string& description) {
  const CLI::callback_t parse = [name, &number, most](const CLI::results_t& words) {
    number = parse_number(words.front(), most);
    if (!number) refuse_usage(name, words.front() + " is not a number from 1 to " + std::to_string(most));
    return true;
  };
  command.add_option(name, parse, description)->type_name(value_name);
}

void add_text(CLI::App& command, const std::string& name, std::optional<std::string>& text,
              const std::string& value_name, const std::string& description) {
  const CLI::callback_t store = [name, &text](const CLI::results_t& words) {
    if (words.front().empty()) refuse_usage(name, "is empty");
    text = words.front();
    return true;
  };
  command.add_option(name, store, description)->type_name(value_name);
}

// A flag that stays unsaid where it is not given; CLI11 would make it false.
void add_switch(CLI::App& command, const std::string& name, std::optional<bool>& flag,
                const std::string& description) {
  command.add_flag_callback(name, [&flag] { flag = true; }, description);
}

void add_name(CLI::App& command, ServedDeviceArguments& device) {
  command
      .add_option(
          "--name", device.name,
          "What the device is called: letters, digits and ._- only. Without it, the file's name without its "
          "extension.")
      ->type_name("NAME");
}

// How its files are opened.
void add_access(CLI::App& command, ServedDeviceArguments& device) {
  command.add_flag("--read-only", device.read_only, "Open everything read-only and refuse changes.");
  command.add_flag("--direct", device.direct, "Do I/O on files past the page cache (O_DIRECT).");
  command.add_flag("--no-ring", device.no_ring,
                   "Write no commit ring: small flushes of a layer take two barriers instead of one.");
}

void add_config(CLI::App& command, std::string& config) {
  command
      .add_option(
          "--config", config,
          "Instead of DEVICE: a file that says which devices to serve and how, as oxbow-config(5) has it. "
          "What the command line says as well wins.")
      ->type_name("FILE");
}

void add_devices(CLI::App& command, ServeArguments& arguments) {
  ServedDeviceArguments& device = arguments.devices.front();
  add_device_arguments(command, device.device);
  add_config(command, arguments.config);
  add_name(command, device);
  command
      .add_option("--description", device.description, "What clients are told about the device, for people.")
      ->type_name("TEXT");
  const CLI::callback_t store_file = [&device](const CLI::results_t& words) {
    if (words.front().empty()) refuse_usage("--fuse", "is empty");
    device.fuse = words.front();
    return true;
  };
  command
      .add_option("--fuse", store_file,
                  "Show the device as the file PATH, which is made, or covered while it is served, as "
                  "oxbow-fuse(7) has it.")
      ->type_name("PATH");
  command.add_flag(
      "--loop", device.loop,
      "Show the device as a loop device of the kernel's, /dev/loopN, as oxbow-loop(7) has it. For root.");
  command.add_flag(
      "--ublk", device.ublk,
      "Show the device as a block device of the kernel's ublk driver, /dev/ublkbN, as oxbow-ublk(7) "
      "has it.");
  add_access(command, device);
  add_number(command, "--on-demand", device.on_demand, k_max_on_demand, "N",
             "With --ram: clients that ask for another name get a RAM disk of that name and size, up to N of "
             "them; what all of them take together is limited by --budget, or by the memory that is "
             "available.");
  command.get_option("--on-demand")->needs("--ram");
  command.get_option("--on-demand")->excludes("--prealloc");
  command.get_option("--on-demand")->excludes("--read-only");
}

void add_addresses(CLI::App& command, ServerArguments& server) {
  const CLI::callback_t store = [&server](const CLI::results_t& words) {
    for (const std::string& each : words) server.nbd.push_back({each, {}});
    return true;
  };
  command
      .add_option(
          "--nbd", store,
          "Serve there: unix:PATH is a Unix socket, tcp:HOST:PORT a TCP address. May be given several times. "
          "Without it, and unless --fuse, --loop or --ublk says where, NAME.sock in the run directory.")
      ->type_name("ADDRESS")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  add_switch(command, "--tcp-plaintext", server.tcp_plaintext,
             "Allow TCP addresses that other hosts can reach, in the clear: with neither a password nor "
             "encryption.");
}

void add_tls(CLI::App& command, ServerArguments& server) {
  add_text(command, "--tls-certificates", server.tls_certificates, "DIR",
           "Serve with TLS only, as the files ca-cert.pem, server-cert.pem and server-key.pem in DIR say.");
  add_text(command, "--tls-psk", server.tls_psk, "FILE",
           "Serve with TLS only, to those who have one of the keys in FILE.");
  add_switch(command, "--tls-verify-peer", server.tls_verify_peer,
             "With --tls-certificates: serve only those who have a certificate from the same authority.");
}

void add_limits(CLI::App& command, ServerArguments& server) {
  add_number(command, "--connections", server.connections, k_max_connections, "N",
             "Serve at most so many clients at a time; others are told so. 1024 without it.");
  add_number(command, "--handshake-limit", server.handshake_limit, k_max_handshake_seconds, "SECONDS",
             "Let a client go that has not chosen a device after that time; 10 without it.");
}

void add_engine(CLI::App& command, ServerArguments& server) {
  add_number(command, "--threads", server.threads, k_max_threads, "N",
             "Serve with so many threads; without it, with as many as there are cores.");
  // A flag with a value: what follows it after a space is not its.
  const auto word = std::make_shared<std::string>();
  command
      .add_flag(
          "--poll{" + std::to_string(k_default_poll_us) + "}", *word,
          "While clients are busy, let each thread look for work so many microseconds before it sleeps: "
          "answers come sooner and cost more. 50 where no number is given; without it, threads sleep at "
          "once.")
      ->type_name("[=US]")
      ->check([&server, word](const std::string& text) {
        server.poll = parse_number(text, k_max_poll_us);
        return server.poll ? "" : text + " is not a number from 1 to " + std::to_string(k_max_poll_us);
      });
}

void add_room(CLI::App& command, ServerArguments& server) {
  const CLI::callback_t on_full = [&server](const CLI::results_t& words) {
    server.on_full = parse_on_full(words.front());
    if (!server.on_full) refuse_usage("--on-full", words.front() + " is neither pause nor error");
    return true;
  };
  command
      .add_option("--on-full", on_full,
                  "What becomes of changes that find no room: pause, they wait until there is some, and "
                  "flushes with them, or error, they fail. It is pause without this option.")
      ->type_name("WHAT");
  add_size_option(
      command, "--reserve", [&server](std::uint64_t size) { server.reserve = size; }, "SIZE",
      "Take a file system for full when less than SIZE would be free.");
}

void add_log(CLI::App& command, ProcessArguments& process) {
  const CLI::callback_t format = [&process](const CLI::results_t& words) {
    process.log = parse_log_format(words.front());
    if (!process.log) refuse_usage("--log", words.front() + " is neither human nor json");
    return true;
  };
  const CLI::callback_t level = [&process](const CLI::results_t& words) {
    process.log_level = parse_log_level(words.front());
    if (!process.log_level)
      refuse_usage("--log-level", words.front() + " is none of debug, info, warning, error");
    return true;
  };
  command
      .add_option(
          "--log", format,
          "How to write what happens to standard error: human, lines for people, or json, an object a line. "
          "It is human without this option.")
      ->type_name("FORMAT");
  command
      .add_option("--log-level", level,
                  "How much of it: debug, info, warning or error; warning without this option.")
      ->type_name("LEVEL");
  add_text(command, "--log-file", process.log_file, "FILE",
           "Append to FILE what would go to standard error once the device is being served. SIGHUP opens it "
           "again.");
}

void add_files(CLI::App& command, ProcessArguments& process) {
  add_text(command, "--pid-file", process.pid_file, "FILE",
           "Write the process's number there once the device is being served, and remove it at the end.");
  add_text(
      command, "--live", process.live, "DIR|off",
      "Keep the live states of layers in DIR, which is on tmpfs, or nowhere. Without this option they are in "
      "the run directory if that is on tmpfs, else in /dev/shm/oxbow-UID.");
}

void add_process(CLI::App& command, ServeArguments& arguments) {
  command.add_flag("--daemon", arguments.daemon,
                   "Return when the device is being served, and leave it running in the background.");
  add_text(command, "--run", arguments.run, "CMD",
           "Run CMD in a shell, with $uri set, while the device is served; end when it ends, with its exit "
           "status.");
  add_files(command, arguments.process);
}

void check_device(ServedDeviceArguments& device) {
  check_device_arguments(device.device);
  if (device.name.empty()) device.name = default_name(device.device);
  if (const std::string why = control::wrong_device_name(device.name); !why.empty())
    refuse_usage("--name", why);
}

template <typename T>
void prefer(std::optional<T>& stronger, std::optional<T>& weaker) {
  if (!stronger) stronger = std::move(weaker);
}

// One device, or with --config none.
void check_device_or_config(const CLI::App& command, ServeArguments& arguments) {
  if (arguments.config.empty()) return check_device(arguments.devices.front());
  for (const char* each : k_of_device) {
    const CLI::Option* const option = command.get_option_no_throw(each);
    if (option != nullptr && option->count() != 0)
      refuse_usage(each, "belongs to a DEVICE; with --config, it is a key of its device");
  }
  if (names_a_device(arguments.devices.front().device))
    refuse_usage("DEVICE", "makes no sense with --config, which names them");
  arguments.devices.clear();
}

}  // namespace

std::optional<control::LogFormat> parse_log_format(std::string_view text) {
  if (text == "human") return control::LogFormat::human;
  if (text == "json") return control::LogFormat::json;
  return std::nullopt;
}

std::optional<OnFull> parse_on_full(std::string_view text) {
  if (text == "pause") return OnFull::pause;
  if (text == "error") return OnFull::error;
  return std::nullopt;
}

std::optional<LogLevel> parse_log_level(std::string_view text) {
  for (const LogLevel each : {LogLevel::debug, LogLevel::info, LogLevel::warning, LogLevel::error}) {
    if (text == control::name_of(each)) return each;
  }
  return std::nullopt;
}

void add_serve_arguments(CLI::App& command, ServeArguments& arguments) {
  add_devices(command, arguments);
  add_addresses(command, arguments.server);
  add_tls(command, arguments.server);
  add_limits(command, arguments.server);
  add_engine(command, arguments.server);
  add_room(command, arguments.server);
  add_process(command, arguments);
  add_log(command, arguments.process);
}

void check_serve_arguments(const CLI::App& command, ServeArguments& arguments) {
  if (arguments.daemon && arguments.run)
    refuse_usage("--daemon", "makes no sense with --run, which ends when its command does");
  if (arguments.config.empty()) {
    if (const auto tls = tls_contradiction(arguments.server)) refuse_usage(tls->option, tls->why);
  }
  check_device_or_config(command, arguments);
}

void add_attach_arguments(CLI::App& command, ServeArguments& arguments) {
  ServedDeviceArguments& device = arguments.devices.front();
  add_device_arguments(command, device.device);
  add_config(command, arguments.config);
  add_name(command, device);
  command.add_flag("--loop", device.loop,
                   "As a loop device, /dev/loopN, whatever else the kernel has, as oxbow-loop(7) has it.");
  command.add_flag(
      "--ublk", device.ublk,
      "As a block device of the ublk driver, /dev/ublkbN, or not at all, as oxbow-ublk(7) has it.");
  add_access(command, device);
  add_room(command, arguments.server);
  command.add_flag_callback(
      "--foreground", [&arguments] { arguments.daemon = false; },
      "Stay in the foreground, as for a service manager, which is told when the device can be used.");
  add_files(command, arguments.process);
  add_log(command, arguments.process);
}

void check_attach_arguments(const CLI::App& command, ServeArguments& arguments) {
  const ServedDeviceArguments& device = arguments.devices.front();
  if (device.loop && device.ublk) refuse_usage("--ublk", "makes no sense with --loop: either of them");
  check_device_or_config(command, arguments);
}

std::optional<TlsContradiction> tls_contradiction(const ServerArguments& server) {
  if (server.tls_certificates && server.tls_psk)
    return TlsContradiction{"--tls-psk",
                            "makes no sense with --tls-certificates: either keys or certificates"};
  if (server.tls_verify_peer.value_or(false) && !server.tls_certificates)
    return TlsContradiction{"--tls-verify-peer", "needs --tls-certificates"};
  return std::nullopt;
}

ServerArguments merged(ServerArguments stronger, ServerArguments weaker) {
  if (stronger.nbd.empty()) stronger.nbd = std::move(weaker.nbd);
  prefer(stronger.tcp_plaintext, weaker.tcp_plaintext);
  if (!stronger.tls_certificates && !stronger.tls_psk) {
    stronger.tls_certificates = std::move(weaker.tls_certificates);
    stronger.tls_psk = std::move(weaker.tls_psk);
  }
  prefer(stronger.tls_verify_peer, weaker.tls_verify_peer);
  prefer(stronger.connections, weaker.connections);
  prefer(stronger.handshake_limit, weaker.handshake_limit);
  prefer(stronger.threads, weaker.threads);
  prefer(stronger.poll, weaker.poll);
  prefer(stronger.on_full, weaker.on_full);
  prefer(stronger.reserve, weaker.reserve);
  return stronger;
}

ProcessArguments merged(ProcessArguments stronger, ProcessArguments weaker) {
  prefer(stronger.log, weaker.log);
  prefer(stronger.log_level, weaker.log_level);
  prefer(stronger.log_file, weaker.log_file);
  prefer(stronger.pid_file, weaker.pid_file);
  prefer(stronger.live, weaker.live);
  return stronger;
}

}  // namespace oxbow
