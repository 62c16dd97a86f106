// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <string_view>

#include "cli/cowloop/pairs.h"
#include "cli/cowloop/words.h"
#include "cli/detach.h"
#include "cli/serve_process.h"
#include "control/device_name.h"

namespace oxbow::cowloop_commands {
namespace {

int list(const Call& call) {
  const auto pairs = served_pairs();
  if (!pairs) {
    complain(call, pairs.error());
    return k_failed;
  }
  const auto line = [](std::string_view device, std::string_view base, std::string_view cowfile) {
    return fmt::format("{:<12} {:<16} {:<32}\n", device, base, cowfile);
  };
  std::string out = line("cowdevice", "read-only file", "copy-on-write file") + std::string(51, '-') + "\n";
  for (const Pair& pair : pairs->found) {
    const bool closed = pair.cowfile.empty();
    out += line(pair.device.empty() ? pair.name : pair.device, closed ? "(closed)" : pair.base,
                closed ? "(closed)" : pair.cowfile);
  }
  for (const Error& error : pairs->unknown) complain(call, error);
  const int told = tell(call, out);
  return pairs->unknown.empty() ? told : k_failed;
}

int activate(const Call& call) {
  ServeArguments arguments;
  arguments.attach = arguments.daemon = true;
  ServedDeviceArguments& device = arguments.devices.emplace_back();
  device.device.cowloop = {call.argv[2], call.argv[3]};
  device.name = default_name(device.device);
  if (call.argc == 5) {
    const std::string_view wanted = call.argv[4];
    device.name = wanted.substr(wanted.rfind('/') + 1);
  }
  if (const std::string why = control::wrong_device_name(device.name); !why.empty()) {
    complain(call, Error("cannot use name", device.name, why));
    return k_failed;
  }
  return static_cast<int>(run_serve(std::move(arguments)));
}

int deactivate(const Call& call) {
  const auto pair = find_pair(call.argv[2]);
  const auto done =
      pair ? detach_served(pair->process, pair->name, false) : Result<void>(std::unexpected(pair.error()));
  if (done) return k_done;
  complain(call, done.error());
  return k_failed;
}

}  // namespace

int cowdev(const Call& call) {
  const std::string_view flag = call.argc > 1 ? call.argv[1] : "";
  if (flag == "-l" && call.argc == 2) return list(call);
  if (flag == "-a" && (call.argc == 4 || call.argc == 5)) return activate(call);
  if (flag == "-d" && call.argc == 3) return deactivate(call);
  return wrong_usage(call);
}

}  // namespace oxbow::cowloop_commands
