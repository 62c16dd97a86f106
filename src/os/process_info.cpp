// SPDX-License-Identifier: Apache-2.0
#include "os/process_info.h"

#include <signal.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <iterator>

namespace oxbow {

ProcessInfo this_process() {
  ProcessInfo info;
  info.pid = static_cast<std::uint64_t>(::getpid());
  std::string host(256, '\0');
  if (::gethostname(host.data(), host.size() - 1) == 0) info.host = host.c_str();
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  info.command.assign(std::istreambuf_iterator<char>(file), {});
  while (!info.command.empty() && info.command.back() == '\0') info.command.pop_back();
  std::ranges::replace(info.command, '\0', ' ');
  return info;
}

bool process_runs(std::uint64_t pid) noexcept {
  return ::kill(static_cast<pid_t>(pid), 0) == 0 || errno == EPERM;
}

std::int64_t now_ns() noexcept {
  const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since_1970).count();
}

bool fill_random(std::span<std::byte> out) noexcept {
  while (!out.empty()) {
    const ::ssize_t got = ::getrandom(out.data(), out.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    out = out.subspan(static_cast<std::size_t>(got));
  }
  return true;
}

}  // namespace oxbow
