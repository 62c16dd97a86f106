// SPDX-License-Identifier: Apache-2.0
#include "cli/stop_signals.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <system_error>

namespace oxbow {
namespace {

constexpr std::chrono::seconds k_patience{1};
constexpr std::string_view k_ended =
    "oxbow: cannot stop in order: second signal: ended at once, what was not flushed may be lost\n";

bool is_ignored(int number) noexcept {
  struct ::sigaction now{};
  return ::sigaction(number, nullptr, &now) == 0 && now.sa_handler == SIG_IGN;
}

}  // namespace

StopSignals::StopSignals() noexcept {
  sigemptyset(&waited_);
  for (const int each : {SIGINT, SIGTERM, SIGCHLD}) sigaddset(&waited_, each);
  if (!is_ignored(SIGHUP)) sigaddset(&waited_, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &waited_, &before_);
  std::signal(SIGCHLD, SIG_DFL);  // ignored, it would keep the status of children from us
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
}

StopSignals::~StopSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

StopSignals::Signal StopSignals::wait() const noexcept {
  siginfo_t info{};
  int got = -1;
  while (got < 0) got = ::sigwaitinfo(&waited_, &info);
  return {got, info.si_code == SI_KERNEL};
}

StopSignals::Signal StopSignals::wait(std::chrono::milliseconds patience) const noexcept {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(patience);
  const timespec time{seconds.count(), std::chrono::nanoseconds(patience - seconds).count()};
  siginfo_t info{};
  const int got = ::sigtimedwait(&waited_, &info, &time);
  return {std::max(got, 0), info.si_code == SI_KERNEL};
}

ImpatientStop::ImpatientStop() noexcept
    : began_(std::chrono::steady_clock::now()), over_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  sigset_t watched;
  sigemptyset(&watched);
  sigaddset(&watched, SIGINT);
  sigaddset(&watched, SIGTERM);
  UniqueFd signals(::signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals.valid() || !over_.valid()) return;  // then the stop takes the time that it takes
  try {
    watcher_ = std::thread([this, fd = std::move(signals)] { watch(fd.get()); });
  } catch (const std::system_error&) {
    return;
  }
}

ImpatientStop::~ImpatientStop() {
  if (!watcher_.joinable()) return;
  (void)::eventfd_write(over_.get(), 1);
  watcher_.join();
}

void ImpatientStop::watch(int signals) const noexcept {
  std::array<pollfd, 2> waited{pollfd{over_.get(), POLLIN, 0}, pollfd{signals, POLLIN, 0}};
  for (;;) {
    (void)::poll(waited.data(), waited.size(), -1);
    if ((waited[0].revents & POLLIN) != 0) return;
    signalfd_siginfo info{};
    if (::read(signals, &info, sizeof(info)) != sizeof(info)) continue;
    if (std::chrono::steady_clock::now() - began_ < k_patience) continue;
    (void)!::write(STDERR_FILENO, k_ended.data(), k_ended.size());
    ::_exit(1);
  }
}

}  // namespace oxbow
