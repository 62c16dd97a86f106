// SPDX-License-Identifier: Apache-2.0
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/command.h"
#include "cli/detach.h"
#include "cli/serve_arguments.h"
#include "cli/serve_process.h"
#include "cli/served.h"
#include "os/fd.h"

namespace oxbow {
namespace {

struct DetachArguments {
  std::string name;
  bool force = false;
};

// Returns when the process has ended, and so let go of all files.
Result<void> wait_for_end(int process, const std::string& name) {
  pollfd waited{process, POLLIN, 0};
  int got = -1;
  while (got < 0) {
    got = ::poll(&waited, 1, -1);
    if (got < 0 && errno != EINTR)
      return std::unexpected(Error::from_errno("cannot wait for process", name, errno));
  }
  return {};
}

ExitStatus detach(const DetachArguments& arguments) {
  const auto process = find_served_process(arguments.name);
  if (!process) return fail(process.error());
  const auto detached = detach_served(*process, arguments.name, arguments.force);
  return detached ? ExitStatus::done : fail(detached.error());
}

}  // namespace

Result<void> detach_served(const control::Record& process, const std::string& name, bool force) {
  // Before it can end, and its number can be another's.
  const UniqueFd ending(static_cast<int>(::syscall(SYS_pidfd_open, static_cast<pid_t>(process.pid), 0)));
  const auto answer = tell_served(process, name, "/detach", {{"force", force}});
  if (!answer) return std::unexpected(answer.error());
  if (!answer->value("ends", false) || !ending.valid()) return {};
  return wait_for_end(ending.get(), name);
}

void add_attach(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<ServeArguments>();
  arguments->devices.resize(1);
  arguments->attach = arguments->daemon = true;
  CLI::App& command = add_command(
      app, "attach", "Make a device a block device of the kernel's, served in the background",
      "{DEVICE [--name NAME] [--loop | --ublk] [--read-only] [--direct] [--no-ring] | --config FILE} "
      "[--on-full WHAT] [--reserve SIZE] [--foreground] [--pid-file FILE] [--live DIR|off] [--log FORMAT] "
      "[--log-level LEVEL] [--log-file FILE]");
  add_attach_arguments(command, *arguments);
  command.callback([arguments, &command, &chosen] {
    check_attach_arguments(command, *arguments);
    chosen = [arguments] { return run_serve(*arguments); };
  });
}

void add_detach(CLI::App& app, Chosen& chosen) {
  auto arguments = std::make_shared<DetachArguments>();
  CLI::App& command =
      add_command(app, "detach", "Take away the block device that a served device is", "NAME [--force]");
  add_served_name(command, arguments->name);
  command.add_flag(
      "--force", arguments->force,
      "Also while it is in use: who uses it gets errors from then on, and what the kernel has not "
      "written of a mounted file system is lost.");
  command.callback([arguments, &chosen] { chosen = [arguments] { return detach(*arguments); }; });
}

}  // namespace oxbow
