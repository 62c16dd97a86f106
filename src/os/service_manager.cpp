// SPDX-License-Identifier: Apache-2.0
#include "os/service_manager.h"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>

#include "os/fd.h"

namespace oxbow {
namespace {

constexpr auto k_what = "cannot tell the service manager";
constexpr ::timeval k_patience{5, 0};

}  // namespace

ServiceManager ServiceManager::from_environment() {
  ServiceManager manager;
  if (const char* const socket = std::getenv("NOTIFY_SOCKET"); socket != nullptr) manager.socket_ = socket;
  ::unsetenv("NOTIFY_SOCKET");
  return manager;
}

Result<void> ServiceManager::tell(std::string_view state) const {
  if (socket_.empty()) return {};
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const bool abstract = socket_.front() == '@';
  if ((!abstract && socket_.front() != '/') || socket_.size() < 2 ||
      socket_.size() >= sizeof(address.sun_path)) {
    return std::unexpected(
        Error(k_what, "NOTIFY_SOCKET", "'" + socket_ + "' is neither an absolute path nor @ and a name"));
  }
  socket_.copy(address.sun_path, socket_.size());
  if (abstract) address.sun_path[0] = '\0';
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + socket_.size());
  const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid() ||
      ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &k_patience, sizeof(k_patience)) != 0 ||
      ::sendto(socket.get(), state.data(), state.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&address), length) < 0) {
    return std::unexpected(Error::from_errno(k_what, socket_, errno));
  }
  return {};
}

}  // namespace oxbow
