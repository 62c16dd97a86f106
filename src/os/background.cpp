// SPDX-License-Identifier: Apache-2.0
#include "os/background.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>

namespace oxbow {
namespace {

constexpr auto k_what = "cannot go on in the background";

Error system_error(std::string where) { return Error::from_errno(k_what, std::move(where), errno); }

}  // namespace

Result<Background> Background::fork() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return std::unexpected(system_error("pipe"));
  UniqueFd reading(ends[0]);
  UniqueFd writing(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) return std::unexpected(system_error("fork"));
  if (child > 0) return Background(std::move(reading), child);
  // A child is never the leader of a group, which is the only way for it to fail.
  if (::setsid() < 0) return std::unexpected(system_error("setsid"));
  return Background(std::move(writing), 0);
}

Result<Background::Outcome> Background::wait() {
  Outcome outcome;
  std::array<char, 4096> part{};
  for (;;) {
    const ssize_t got = ::read(pipe_.get(), part.data(), part.size());
    if (got == 0) break;
    if (got < 0 && errno != EINTR) return std::unexpected(system_error("pipe"));
    if (got > 0) outcome.text.append(part.data(), static_cast<std::size_t>(got));
  }
  outcome.ready = !outcome.text.empty();
  if (outcome.ready) return outcome;
  int status = 0;
  while (::waitpid(child_, &status, 0) < 0) {
    if (errno != EINTR) return std::unexpected(system_error("its process"));
  }
  if (WIFSIGNALED(status)) {
    return std::unexpected(
        Error(k_what, "its process", "it was ended by signal " + std::to_string(WTERMSIG(status))));
  }
  outcome.status = WEXITSTATUS(status);
  if (outcome.status == 0)
    return std::unexpected(Error(k_what, "its process", "it ended before it was ready"));
  return outcome;
}

void Background::end() const noexcept {
  // It may have ended already, which is what is asked for.
  (void)::kill(child_, SIGTERM);
}

Result<void> Background::leave(int errors) {
  const UniqueFd nothing(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!nothing.valid()) return std::unexpected(system_error("/dev/null"));
  if (::chdir("/") != 0) return std::unexpected(system_error("/"));
  if (::dup2(nothing.get(), STDIN_FILENO) < 0 || ::dup2(nothing.get(), STDOUT_FILENO) < 0 ||
      ::dup2(errors >= 0 ? errors : nothing.get(), STDERR_FILENO) < 0) {
    return std::unexpected(system_error("standard input, output and error"));
  }
  return {};
}

Result<void> Background::ready(std::string_view text) {
  while (!text.empty()) {
    const ssize_t put = ::write(pipe_.get(), text.data(), text.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return std::unexpected(system_error("whoever started it"));
    text.remove_prefix(static_cast<std::size_t>(put));
  }
  pipe_.reset();
  return {};
}

}  // namespace oxbow
