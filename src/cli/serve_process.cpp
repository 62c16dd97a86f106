// SPDX-License-Identifier: Apache-2.0
#include "cli/serve_process.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <map>
#include <utility>

#include "cli/config.h"
#include "cli/stop_signals.h"
#include "control/log_sink.h"
#include "control/serving.h"
#include "exports/ublk/ublk_export.h"
#include "jobs/live_directory.h"
#include "jobs/run_directory.h"
#include "os/background.h"
#include "os/descriptor_limit.h"
#include "os/log_file.h"
#include "os/passed_sockets.h"
#include "os/pid_file.h"
#include "os/private_folder.h"
#include "os/service_manager.h"
#include "os/shell_command.h"

namespace oxbow {
namespace {

constexpr auto k_what = "cannot serve";
constexpr std::chrono::milliseconds k_between_looks(200);
constexpr std::chrono::seconds k_one_request(1);

Result<std::vector<control::DeviceToServe>> devices_to_serve(
    const std::vector<ServedDeviceArguments>& given) {
  std::vector<control::DeviceToServe> devices;
  for (const ServedDeviceArguments& each : given) {
    auto spec = to_device_spec(each.device);
    if (!spec) return std::unexpected(control::at_origin(each.origin, spec.error()));
    devices.push_back({.name = each.name,
                       .spec = std::move(*spec),
                       .source = source_text(each.device),
                       .description = each.description,
                       .fuse = each.fuse,
                       .loop = each.loop,
                       .ublk = each.ublk,
                       .read_only = each.read_only,
                       .direct = each.direct,
                       .ring = !each.no_ring,
                       .accept_base = each.device.accept_base,
                       .allow_bases = each.device.allow_bases,
                       .discard_live = each.device.discard_live,
                       .on_demand = each.on_demand.value_or(0),
                       .origin = each.origin});
  }
  const auto chosen = std::ranges::find(given, true, &ServedDeviceArguments::is_default);
  if (chosen != given.end()) {
    const auto place = devices.begin() + (chosen - given.begin());
    std::rotate(devices.begin(), place, place + 1);
  }
  return devices;
}

Result<std::shared_ptr<const nbd::TlsCredentials>> tls_credentials(const ServerArguments& given) {
  using nbd::TlsCredentials;
  if (const auto wrong = tls_contradiction(given))
    return std::unexpected(Error(k_what, wrong->option, wrong->why));
  if (given.tls_psk) return TlsCredentials::from_psk_file(*given.tls_psk);
  if (!given.tls_certificates) return nullptr;
  return TlsCredentials::from_certificates(*given.tls_certificates, given.tls_verify_peer.value_or(false)
                                                                        ? TlsCredentials::Clients::certified
                                                                        : TlsCredentials::Clients::anybody);
}

nbd::Server::Options server_options(const ServerArguments& given) {
  nbd::Server::Options options;
  if (given.connections) options.max_connections = *given.connections;
  if (given.handshake_limit) options.handshake_limit = std::chrono::seconds(*given.handshake_limit);
  if (given.threads) options.threads = *given.threads;
  if (given.poll) options.poll_limit = std::chrono::microseconds(*given.poll);
  options.tcp_plaintext = given.tcp_plaintext.value_or(false);
  return options;
}

// What attaches a device where nothing was said: ublk where the kernel has it.
void choose_kind(ServedDeviceArguments& device) {
  if (device.loop || device.ublk) return;
  device.ublk = ublk::UblkExport::available().has_value();
  device.loop = !device.ublk;
}

std::string percent_decoded(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size()) {
      out += static_cast<char>(std::stoi(std::string(text.substr(i + 1, 2)), nullptr, 16));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

// What a command that runs beside the server finds in its environment.
std::map<std::string, std::string> variables_for(const std::vector<std::string>& uris,
                                                 const std::string& name) {
  std::map<std::string, std::string> variables{
      {"uri", uris.front()}, {"exportname", name}, {"unixsocket", ""}, {"port", ""}, {"file", ""}};
  for (const std::string_view uri : uris) {
    constexpr std::string_view k_file = "file://";
    if (uri.starts_with(k_file)) {
      if (variables["file"].empty()) variables["file"] = percent_decoded(uri.substr(k_file.size()));
      continue;
    }
    constexpr std::string_view k_socket = "?socket=";
    if (const std::size_t at = uri.find(k_socket); at != std::string_view::npos) {
      const std::string_view rest = uri.substr(at + k_socket.size());
      if (variables["unixsocket"].empty())
        variables["unixsocket"] = percent_decoded(rest.substr(0, rest.find('&')));
      continue;
    }
    const std::string_view host = uri.substr(uri.find("://") + 3);
    const std::string_view authority = host.substr(0, host.find('/'));
    if (variables["port"].empty()) variables["port"] = authority.substr(authority.rfind(':') + 1);
  }
  return variables;
}

// One run of `oxbow serve`. Thread safety: one thread.
class ServeProcess {
 public:
  explicit ServeProcess(ServeArguments arguments)
      : arguments_(std::move(arguments)), manager_(ServiceManager::from_environment()) {}

  [[nodiscard]] ExitStatus run();

 private:
  [[nodiscard]] Result<void> prepare();
  [[nodiscard]] ExitStatus wait_for_background();
  [[nodiscard]] Result<control::ServingPlan> plan();
  [[nodiscard]] Result<std::vector<control::AddressToServe>> addresses(const std::string& default_name);
  [[nodiscard]] Result<void> start();
  [[nodiscard]] Result<void> announce();
  [[nodiscard]] int wait();
  void wait_for_users();
  [[nodiscard]] bool ends_at(const StopSignals::Signal& signal);
  [[nodiscard]] bool stop();
  void tell_manager(const std::string& state);
  void report(const Error& error);

  std::optional<StopSignals> signals_{std::in_place};  // not for who only waits for the background
  const DescriptorLimit descriptors_;
  ServeArguments arguments_;
  const ServiceManager manager_;
  std::vector<UniqueFd> sockets_;
  std::optional<control::LogSink> log_;  // made after the fork
  bool is_logging_ = false;              // errors are lines of the log from now on
  std::optional<Background> background_;
  std::optional<LogFile> log_file_;
  std::optional<PidFile> pid_file_;
  std::optional<PrivateFolder> private_folder_;
  std::unique_ptr<control::Serving> serving_;
  std::optional<ShellCommand> command_;
};

// What can be known to be wrong before anything is opened.
Result<void> ServeProcess::prepare() {
  if (!arguments_.config.empty()) {
    auto config = load_config(arguments_.config);
    if (!config) return std::unexpected(std::move(config.error()));
    arguments_.devices = std::move(config->devices);
    arguments_.server = merged(std::move(arguments_.server), std::move(config->server));
    arguments_.process = merged(std::move(arguments_.process), std::move(config->process));
  }
  if (arguments_.attach) std::ranges::for_each(arguments_.devices, choose_kind);
  auto sockets = take_passed_sockets();
  if (!sockets) return std::unexpected(std::move(sockets.error()));
  sockets_ = std::move(*sockets);
  if (sockets_.empty()) return {};
  const auto refuse = [](const std::string& option, const char* why) {
    return std::unexpected(Error(k_what, option, why));
  };
  if (const auto& nbd = arguments_.server.nbd; !nbd.empty())
    return refuse(nbd.front().origin.empty() ? "--nbd" : nbd.front().origin,
                  "sockets were passed by a service manager, and those are the ones to serve at");
  if (arguments_.daemon)
    return refuse("--daemon",
                  "sockets were passed by a service manager, which starts it in the background itself");
  return {};
}

ExitStatus ServeProcess::wait_for_background() {
  auto outcome = background_->wait();
  if (!outcome) return fail(outcome.error());
  if (!outcome->ready) return static_cast<ExitStatus>(outcome->status);
  if (auto printed = print(outcome->text); !printed) {
    background_->end();
    return fail(printed.error());
  }
  return ExitStatus::done;
}

// Where to serve when nothing was said: next to the control socket, or for a command where nobody else looks.
Result<std::vector<control::AddressToServe>> ServeProcess::addresses(const std::string& default_name) {
  std::vector<control::AddressToServe> all;
  for (const AddressArgument& each : arguments_.server.nbd) all.push_back({each.address, each.origin});
  if (!all.empty() || !sockets_.empty()) return all;
  const auto is_file = [](const ServedDeviceArguments& each) {
    return !each.fuse.empty() || each.loop || each.ublk;
  };
  if (std::ranges::all_of(arguments_.devices, is_file)) return all;
  if (arguments_.run) {
    auto folder = PrivateFolder::create();
    if (!folder) return std::unexpected(std::move(folder.error()));
    private_folder_ = std::move(*folder);
    all.push_back({"unix:" + private_folder_->path() + "/socket", {}});
    return all;
  }
  auto directory = run_directory();
  if (!directory) return std::unexpected(std::move(directory.error()));
  all.push_back({"unix:" + *directory + "/" + default_name + ".sock", {}});
  return all;
}

Result<control::ServingPlan> ServeProcess::plan() {
  control::ServingPlan plan;
  auto devices = devices_to_serve(arguments_.devices);
  if (!devices) return std::unexpected(std::move(devices.error()));
  plan.devices = std::move(*devices);
  auto where = addresses(plan.devices.front().name);
  if (!where) return std::unexpected(std::move(where.error()));
  plan.addresses = std::move(*where);
  plan.sockets = std::move(sockets_);
  plan.nbd = server_options(arguments_.server);
  plan.on_full = arguments_.server.on_full.value_or(OnFull::pause);
  plan.reserve_bytes = arguments_.server.reserve.value_or(0);
  auto tls = tls_credentials(arguments_.server);
  if (!tls) return std::unexpected(std::move(tls.error()));
  plan.nbd.tls = *std::move(tls);
  plan.nbd.log = &*log_;
  plan.log = &*log_;
  auto live = live_settings(arguments_.process.live);
  if (!live) return std::unexpected(std::move(live.error()));
  plan.live = std::move(*live);
  // A command has its server for itself, and several may run at a time.
  plan.ends_when_detached = arguments_.attach;
  plan.may_be_unlisted = arguments_.run.has_value();
  if (auto directory = run_directory()) {
    plan.run_directory = std::move(*directory);
  } else {
    log_->write(LogLevel::warning, "serve", "no control socket: " + directory.error().text());
  }
  return plan;
}

Result<void> ServeProcess::start() {
  const ProcessArguments& process = arguments_.process;
  log_.emplace(control::LogSink::Options{.format = process.log.value_or(control::LogFormat::human),
                                         .level = process.log_level.value_or(LogLevel::warning)});
  if (const auto& path = arguments_.process.log_file) {
    auto file = LogFile::open(*path);
    if (!file) return std::unexpected(std::move(file.error()));
    log_file_ = std::move(*file);
  }
  auto planned = plan();
  if (!planned) return std::unexpected(std::move(planned.error()));
  const std::string name = planned->devices.front().name;
  auto serving = control::Serving::start(std::move(*planned));
  if (!serving) return std::unexpected(std::move(serving.error()));
  serving_ = std::move(*serving);
  if (const auto& path = arguments_.process.pid_file) {
    auto file = PidFile::create(*path);
    if (!file) return std::unexpected(std::move(file.error()));
    pid_file_ = std::move(*file);
  }
  if (!arguments_.run) return {};
  descriptors_.lower();
  auto command = ShellCommand::start(*arguments_.run, variables_for(serving_->uris(), name));
  descriptors_.raise();
  if (!command) return std::unexpected(std::move(command.error()));
  command_ = *command;
  return {};
}

// Says that it is ready, to all who want to know.
Result<void> ServeProcess::announce() {
  std::string lines;
  for (const std::string& each : arguments_.attach ? serving_->kernel_paths() : serving_->uris())
    lines += each + "\n";
  if (background_) {
    if (auto left = background_->leave(log_file_ ? log_file_->fd() : -1); !left) return left;
    if (auto told = background_->ready(lines); !told) return told;
  } else if (!command_) {
    if (auto printed = print(lines); !printed) return printed;
  }
  if (log_file_ && !background_) {
    if (auto taken = log_file_->take_standard_error(); !taken) return taken;
  }
  is_logging_ = background_ || log_file_ || arguments_.process.log == control::LogFormat::json;
  tell_manager("READY=1\nSTATUS=Serving at " + serving_->uris().front());
  return {};
}

// An error of the process itself, where its reader is: a person, or a log.
void ServeProcess::report(const Error& error) {
  if (is_logging_) {
    log_->write(LogLevel::error, "serve", error.text());
  } else {
    (void)fail(error);
  }
}

void ServeProcess::tell_manager(const std::string& state) {
  if (auto told = manager_.tell(state); !told) report(told.error());
}

// Whether to stop now. With a command, its end is the end.
bool ServeProcess::ends_at(const StopSignals::Signal& signal) {
  if (signal.number == SIGCHLD) return command_ && command_->status() >= 0;
  if (signal.number == SIGHUP) {
    if (log_file_) {
      if (auto reopened = log_file_->reopen(); !reopened) report(reopened.error());
      return false;
    }
    if (background_) return false;
  }
  if (!command_) return true;
  if (!signal.from_terminal) command_->signal(signal.number);
  return false;
}

// While a block device is in use: its users would get errors. A second signal to end is taken at its word.
void ServeProcess::wait_for_users() {
  std::string users = serving_->kernel_users();
  if (users.empty()) return;
  log_->write(LogLevel::warning, "serve", "goes on until nobody uses it any more: " + users);
  tell_manager("STATUS=Waiting for who uses it: " + users);
  const auto began = std::chrono::steady_clock::now();
  while (!users.empty()) {
    const StopSignals::Signal signal = signals_->wait(k_between_looks);
    const bool ends = signal.number == SIGINT || signal.number == SIGTERM;
    // Whoever wants to stop a group of processes often sends two at once.
    if (ends && std::chrono::steady_clock::now() - began >= k_one_request) return;
    users = serving_->kernel_users();
  }
}

// Returns the exit status.
int ServeProcess::wait() {
  while (!ends_at(signals_->wait())) {
  }
  wait_for_users();
  return command_ ? command_->status() : 0;
}

// Whether everything is durable.
bool ServeProcess::stop() {
  const ImpatientStop way_out;
  tell_manager("STOPPING=1\nSTATUS=Letting clients go and making everything durable");
  bool durable = true;
  serving_->stop([&](const Error& error) {
    durable = false;
    report(error);
  });
  return durable;
}

ExitStatus ServeProcess::run() {
  if (auto prepared = prepare(); !prepared) return fail(prepared.error());
  if (arguments_.daemon) {
    auto forked = Background::fork();
    if (!forked) return fail(forked.error());
    background_ = std::move(*forked);
    if (background_->is_parent()) {
      signals_.reset();
      return wait_for_background();
    }
  }
  auto started = start();
  if (started) started = announce();
  int status = 1;
  if (started) {
    status = wait();
  } else {
    (void)fail(started.error());
  }
  if (serving_ && !stop()) status = 1;
  return static_cast<ExitStatus>(status);
}

}  // namespace

ExitStatus run_serve(ServeArguments arguments) { return ServeProcess(std::move(arguments)).run(); }

}  // namespace oxbow
