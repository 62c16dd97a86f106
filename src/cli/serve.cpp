// SPDX-License-Identifier: Apache-2.0
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/command.h"
#include "cli/serve_arguments.h"
#include "cli/serve_process.h"

namespace oxbow {

void add_serve(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<ServeArguments>();
  arguments->devices.resize(1);
  CLI::App& command = add_command(
      app, "serve", "Serve devices until SIGINT or SIGTERM",
      "{DEVICE [--name NAME] [--description TEXT] [--fuse PATH] [--loop] [--ublk] [--read-only] [--direct] "
      "[--on-demand N] "
      "[--no-ring] | "
      "--config FILE} "
      "[--nbd ADDRESS "
      "...] [--tcp-plaintext] [--tls-certificates DIR [--tls-verify-peer] | --tls-psk FILE] [--connections "
      "N] [--handshake-limit SECONDS] [--threads N] [--poll[=US]] [--on-full WHAT] [--reserve SIZE] "
      "[--daemon | --run CMD] [--pid-file FILE] [--live DIR|off] [--log FORMAT] [--log-level LEVEL] "
      "[--log-file FILE]");
  add_serve_arguments(command, *arguments);
  command.callback([arguments, &command, &chosen] {
    check_serve_arguments(command, *arguments);
    chosen = [arguments] { return run_serve(*arguments); };
  });
}

}  // namespace oxbow
