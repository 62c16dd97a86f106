// SPDX-License-Identifier: Apache-2.0
#include "os/apart.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <string>
#include <utility>

namespace oxbow {
namespace {

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) std::abort();
    reading.reset(ends[0]);
    writing.reset(ends[1]);
  }
  UniqueFd reading;
  UniqueFd writing;
};

TEST(Apart, HasTheDescriptorAlone) {
  const Pipe pipe;
  const int result = run_apart(pipe.writing.get(), [&](int fd) {
    EXPECT_EQ(fd, pipe.writing.get());
    EXPECT_EQ(::write(fd, "x", 1), 1);
    EXPECT_EQ(::fcntl(pipe.reading.get(), F_GETFD), -1);
    EXPECT_EQ(errno, EBADF);
    EXPECT_EQ(::fcntl(0, F_GETFD), -1);
    return 77;
  });
  EXPECT_EQ(result, 77);
  char got = 0;
  EXPECT_EQ(::read(pipe.reading.get(), &got, 1), 1);  // which the process still has
}

TEST(Apart, KeepsWhatItOpenedUntilTheRestIsDone) {
  const Pipe pipe;
  const std::string name = "/proc/self/task/" + std::to_string(::gettid()) + "/fd/";
  int opened = -1;
  bool seen = false;
  const int error = run_apart_before(
      [&] {
        EXPECT_EQ(::fcntl(pipe.reading.get(), F_GETFD), -1);
        opened = ::open((name + std::to_string(pipe.writing.get())).c_str(), O_WRONLY | O_CLOEXEC);
        EXPECT_GE(opened, 0);
      },
      [&] {
        seen = true;
        EXPECT_EQ(::fcntl(pipe.reading.get(), F_GETFD), FD_CLOEXEC);
      });
  EXPECT_EQ(error, 0);
  EXPECT_TRUE(seen);
}

TEST(Apart, ClosesForTheLastTime) {
  Pipe pipe;
  const int number = pipe.writing.get();
  close_apart(std::move(pipe.writing));
  EXPECT_EQ(::fcntl(number, F_GETFD), -1);
  char got = 0;
  EXPECT_EQ(::read(pipe.reading.get(), &got, 1), 0);  // the end, and not EAGAIN: nobody has it any more
}

}  // namespace
}  // namespace oxbow
