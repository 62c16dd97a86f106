// SPDX-License-Identifier: Apache-2.0
#include "os/apart.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <latch>
#include <system_error>
#include <thread>
#include <utility>

namespace oxbow {
namespace {

// Gives the calling thread a table of descriptors of its own, with `fd` alone. An errno value, or 0.
int keep_only(int fd) noexcept {
  const auto number = static_cast<unsigned>(fd);
  if (::unshare(CLONE_FILES) != 0) return errno;
  // From here on it has a table of its own; closing what is open there can't fail.
  if (number > 0) (void)::close_range(0, number - 1, 0);
  (void)::close_range(number + 1, ~0U, 0);
  return 0;
}

}  // namespace

int run_apart(int fd, const std::function<int(int fd)>& work) noexcept {
  int result = 0;
  try {
    std::thread([&] {
      result = keep_only(fd);
      if (result != 0) return;
      result = work(fd);
      (void)::close(fd);  // its own, and before it is waited for: a thread that has ended may still have it
    }).join();
  } catch (const std::system_error& failure) {
    return failure.code().value();
  }
  return result;
}

int run_apart_before(const std::function<void()>& work, const std::function<void()>& then) noexcept {
  int result = 0;
  try {
    std::latch worked(1);
    std::latch finished(1);
    std::thread other([&] {
      result = ::unshare(CLONE_FILES) == 0 ? 0 : errno;
      if (result == 0) {
        (void)::close_range(0, ~0U, 0);
        work();
      }
      worked.count_down();
      finished.wait();
      if (result == 0) (void)::close_range(0, ~0U, 0);
    });
    worked.wait();
    if (result == 0) then();
    finished.count_down();
    other.join();
  } catch (const std::system_error& failure) {
    return failure.code().value();
  }
  return result;
}

void close_apart(UniqueFd fd) noexcept {
  try {
    std::latch kept(1);
    std::latch closed(1);
    std::thread other([&, number = fd.get()] {
      const bool own = keep_only(number) == 0;
      kept.count_down();
      closed.wait();
      if (own) (void)::close(number);  // for the last time
    });
    kept.wait();
    fd.reset();
    closed.count_down();
    other.join();
  } catch (const std::system_error&) {
    fd.reset();
  }
}

}  // namespace oxbow
