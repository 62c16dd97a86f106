// SPDX-License-Identifier: Apache-2.0
#include "os/passed_sockets.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

namespace oxbow {
namespace {

constexpr auto k_what = "cannot take passed sockets";
constexpr int k_first = 3;
constexpr int k_most = 1024;

// The variable's text, which is removed; nothing when it is not set.
std::optional<std::string> take(const char* name) {
  const char* const found = std::getenv(name);
  if (found == nullptr) return std::nullopt;
  std::string text = found;
  ::unsetenv(name);
  return text;
}

std::optional<int> number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.begin(), text.end(), value);
  if (error != std::errc() || end != text.end() || value < 0) return std::nullopt;
  return value;
}

}  // namespace

Result<std::vector<UniqueFd>> take_passed_sockets() {
  const auto pid = take("LISTEN_PID");
  const auto count = take("LISTEN_FDS");
  (void)take("LISTEN_FDNAMES");
  std::vector<UniqueFd> passed;
  if (!pid || !count) return passed;
  const auto whose = number(*pid);
  if (!whose)
    return std::unexpected(Error(k_what, "LISTEN_PID", "'" + *pid + "' is not the number of a process"));
  if (*whose != ::getpid()) return passed;
  const auto how_many = number(*count);
  if (!how_many || *how_many > k_most) {
    return std::unexpected(
        Error(k_what, "LISTEN_FDS", "'" + *count + "' is not a number from 0 to " + std::to_string(k_most)));
  }
  for (int fd = k_first; fd < k_first + *how_many; ++fd) {
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
      return std::unexpected(Error::from_errno(k_what, "descriptor " + std::to_string(fd), errno));
    passed.emplace_back(fd);
  }
  return passed;
}

}  // namespace oxbow
