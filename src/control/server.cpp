// SPDX-License-Identifier: Apache-2.0
#include "control/server.h"

#include <system_error>
#include <utility>

#include "control/connections.h"
#include "control/http.h"
#include "control/registry.h"
#include "control/router.h"

namespace oxbow::control {
namespace {

constexpr Connections::Limits k_limits{};
// The others stay free for requests that don't wait.
constexpr unsigned k_most_waiting = static_cast<unsigned>(k_limits.clients / 2);

}  // namespace

// In the order in which they are made, and unmade from the last on. Thread safety: as their classes say.
struct Server::Parts {
  Parts(Served what, Registration place, Log* log)
      : served(std::move(what)),
        registration(std::move(place)),
        router(served, k_most_waiting),
        http(router),
        connections(registration.socket(), http, k_limits, log) {}

  Served served;
  Registration registration;
  Router router;
  Http http;
  Connections connections;
};

Server::Server(std::unique_ptr<Parts> parts) noexcept
    : parts_(std::move(parts)), path_(parts_->registration.record().socket) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::start(Served served, const std::string& run_directory, Log* log) {
  std::vector<std::string> names;
  for (const ServedDevice& device : served.devices.all()) names.push_back(device.name);
  auto place = Registration::make(run_directory, std::move(names));
  if (!place) return std::unexpected(place.error());
  return start(std::move(served), std::move(*place), log);
}

Result<std::unique_ptr<Server>> Server::start(Served served, Registration place, Log* log) {
  const std::string where = place.record().socket;
  try {
    return std::unique_ptr<Server>(
        new Server(std::make_unique<Parts>(std::move(served), std::move(place), log)));
  } catch (const std::system_error& error) {
    return std::unexpected(Error::from_errno("cannot start control server", where, error.code().value()));
  }
}

Result<void> Server::add(ServedDevice device, std::chrono::milliseconds patience) {
  if (auto added = parts_->registration.add(device.name, patience); !added) return added;
  parts_->served.devices.push_back(std::move(device));
  return {};
}

void Server::stop() noexcept { parts_.reset(); }

const std::string& Server::path() const noexcept { return path_; }

}  // namespace oxbow::control
