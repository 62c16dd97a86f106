// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>
#include <vector>

#include "cli/command.h"
#include "cli/device_arguments.h"
#include "cli/stop_signals.h"
#include "exports/nbd/server.h"
#include "jobs/open_device.h"
#include "jobs/run_directory.h"

namespace oxbow {
namespace {

struct ServeArguments {
  DeviceArguments device;
  std::string name;
  bool read_only = false;
  bool direct = false;
  std::vector<std::string> nbd;
  bool tcp_plaintext = false;
};

// Where to serve when nothing was said.
Result<std::vector<std::string>> addresses(const ServeArguments& arguments) {
  if (!arguments.nbd.empty()) return arguments.nbd;
  auto directory = run_directory();
  if (!directory) return std::unexpected(directory.error());
  return std::vector{"unix:" + *directory + "/" + arguments.name + ".sock"};
}

// Serves until a signal comes. Nothing is in flight on the device afterwards.
Result<void> serve_until_stopped(Device& device, const ServeArguments& arguments,
                                 const StopSignals& signals) {
  const auto where = addresses(arguments);
  if (!where) return std::unexpected(where.error());
  auto exports =
      nbd::Exports::make({{.name = arguments.name, .device = &device, .read_only = arguments.read_only}});
  if (!exports) return std::unexpected(exports.error());
  nbd::Server::Options options;
  options.tcp_plaintext = arguments.tcp_plaintext;
  nbd::Server server(std::move(*exports), std::move(options));
  std::string uris;
  for (const std::string& each : *where) {
    if (auto listening = server.listen(each); !listening) return listening;
    uris += server.uri({}, server.listeners() - 1) + "\n";
  }
  if (auto started = server.start(); !started) return started;
  if (auto printed = print(uris); !printed) return printed;
  signals.wait();
  server.stop();
  return {};
}

ExitStatus serve(const ServeArguments& arguments) {
  const StopSignals signals;
  auto spec = to_device_spec(arguments.device);
  if (!spec) return fail(spec.error());
  Queue queue;
  auto opened = open_device(queue, *spec,
                            {.name = arguments.name,
                             .writable = !arguments.read_only,
                             .direct = arguments.direct,
                             .accept_base = arguments.device.accept_base});
  if (!opened) return fail(opened.error());
  const auto served = serve_until_stopped(*opened->device, arguments, signals);
  const IoStatus closed = opened->device->close(queue);
  ExitStatus status = served ? ExitStatus::done : fail(served.error());
  if (!closed.ok())
    status = fail(Error::from_errno("cannot close device", arguments.name, closed.error_number()));
  return status;
}

}  // namespace

void add_serve(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<ServeArguments>();
  CLI::App& command =
      add_command(app, "serve", "Serve a device until SIGINT or SIGTERM",
                  "DEVICE [--name NAME] [--read-only] [--direct] [--nbd ADDRESS ...] [--tcp-plaintext]");
  add_device_arguments(command, arguments->device);
  command
      .add_option(
          "--name", arguments->name,
          "What the device is called: letters, digits and ._- only. Without it, the file's name without its "
          "extension.")
      ->type_name("NAME");
  command.add_flag("--read-only", arguments->read_only, "Open everything read-only and refuse changes.");
  command.add_flag("--direct", arguments->direct, "Do I/O on files past the page cache (O_DIRECT).");
  command
      .add_option(
          "--nbd", arguments->nbd,
          "Serve there: unix:PATH is a Unix socket, tcp:HOST:PORT a TCP address. May be given several times. "
          "Without it, NAME.sock in the run directory.")
      ->type_name("ADDRESS")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command.add_flag("--tcp-plaintext", arguments->tcp_plaintext,
                   "Allow TCP addresses that other hosts can reach, in the clear: with neither a password "
                   "nor encryption.");
  command.callback([arguments, &chosen] {
    check_device_arguments(arguments->device);
    if (arguments->name.empty()) arguments->name = default_name(arguments->device);
    if (const std::string why = wrong_name(arguments->name); !why.empty()) refuse_usage("--name", why);
    chosen = [arguments] { return serve(*arguments); };
  });
}

}  // namespace oxbow
