// SPDX-License-Identifier: Apache-2.0
#include "os/ring.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstring>
#include <thread>
#include <vector>

#include "os/fd.h"
#include "os/queue.h"

namespace oxbow {
namespace {

// Counts down at its end. Thread safety: the queue's thread.
struct Counted : Io {
  Counted(Queue& owner, std::size_t& count)
      : Io(owner, [](Io& self) noexcept { --static_cast<Counted&>(self).left; }), left(count) {}
  std::size_t& left;
};

class RingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (queue_.ring() == nullptr) GTEST_SKIP() << "SKIP: the kernel gives no io_uring";
    std::string name = "oxbow-test-XXXXXX";
    file_ = UniqueFd(::mkstemp(name.data()));
    ASSERT_TRUE(file_.valid());
    ASSERT_EQ(::unlink(name.c_str()), 0);
  }

  IoStatus read(std::uint64_t at, std::span<char> out, int fd) {
    return run_blocking(queue_, [&](Io& io) {
      io.iov.push_back({out.data(), out.size()});
      return queue_.ring()->read(io, fd, at);
    });
  }
  IoStatus write(std::uint64_t at, std::initializer_list<std::string_view> pieces, int fd) {
    return run_blocking(queue_, [&](Io& io) {
      for (std::string_view piece : pieces) io.iov.push_back({const_cast<char*>(piece.data()), piece.size()});
      return queue_.ring()->write(io, fd, at);
    });
  }

  Queue queue_;
  UniqueFd file_;
};

TEST_F(RingTest, MovesGatheredBytes) {
  ASSERT_TRUE(write(3, {"one", "", "two", "three"}, file_.get()).ok());
  std::string out(11, '\0');
  ASSERT_TRUE(read(3, out, file_.get()).ok());
  EXPECT_EQ(out, "onetwothree");
  const IoStatus synced =
      run_blocking(queue_, [&](Io& io) { return queue_.ring()->data_sync(io, file_.get()); });
  EXPECT_TRUE(synced.ok());
}

TEST_F(RingTest, TellsErrorsAndUnexpectedEnds) {
  ASSERT_TRUE(write(0, {"12345"}, file_.get()).ok());
  std::string out(6, '\0');
  EXPECT_EQ(read(0, out, file_.get()).error_number(), EIO);
  EXPECT_EQ(read(100, out, file_.get()).error_number(), EIO);
  const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(write(0, {"x"}, null.get()).error_number(), EBADF);
}

TEST_F(RingTest, ContinuesShortTransfers) {
  int fds[2];
  ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd from(fds[0]);
  const UniqueFd to(fds[1]);
  std::string sent(300'000, '\0');
  for (std::size_t at = 0; at < sent.size(); ++at) sent[at] = static_cast<char>(at % 251);
  std::size_t left = 2;
  Counted reading(queue_, left);
  Counted writing(queue_, left);
  std::string got(sent.size(), '\0');
  // Longer than a pipe holds: both sides move it piece by piece, and meet across the bounds of their buffers.
  reading.iov.push_back({got.data(), 100'001});
  reading.iov.push_back({got.data() + 100'001, got.size() - 100'001});
  writing.iov.push_back({sent.data(), 7});
  writing.iov.push_back({sent.data() + 7, sent.size() - 7});
  EXPECT_TRUE(queue_.ring()->read(reading, from.get(), 0).is_pending());
  EXPECT_TRUE(queue_.ring()->write(writing, to.get(), 0).is_pending());
  while (left > 0) {
    if (!queue_.poll()) queue_.wait();
  }
  EXPECT_TRUE(reading.status.ok());
  EXPECT_TRUE(writing.status.ok());
  EXPECT_EQ(got, sent);
}

TEST_F(RingTest, TakesMoreThanItHasEntries) {
  constexpr std::size_t count = 3000;
  std::vector<std::uint32_t> values(count);
  std::vector<std::unique_ptr<Counted>> ios;
  std::size_t left = count;
  for (std::uint32_t index = 0; index < count; ++index) {
    values[index] = index * 7;
    ios.push_back(std::make_unique<Counted>(queue_, left));
    ios.back()->iov.push_back({&values[index], sizeof values[index]});
    EXPECT_TRUE(queue_.ring()->write(*ios.back(), file_.get(), index * sizeof values[index]).is_pending());
  }
  EXPECT_EQ(left, count) << "nothing completes before poll";
  while (left > 0) {
    if (!queue_.poll()) queue_.wait();
  }
  std::vector<std::uint32_t> out(count);
  ASSERT_EQ(::pread(file_.get(), out.data(), count * sizeof out[0], 0),
            static_cast<ssize_t>(count * sizeof out[0]));
  EXPECT_EQ(out, values);
  for (const auto& io : ios) EXPECT_TRUE(io->status.ok());
}

TEST_F(RingTest, AnswersEagainOnlyToWhoAskedNotToWait) {
  int fds[2];
  ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  const UniqueFd from(fds[0]);
  const UniqueFd to(fds[1]);
  char byte = 0;
  const IoStatus status = run_blocking(queue_, [&](Io& io) {
    io.iov.push_back({&byte, 1});
    return queue_.ring()->read(io, from.get(), 0, RWF_NOWAIT);
  });
  EXPECT_EQ(status.error_number(), EAGAIN);
  std::thread writer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_EQ(::write(to.get(), "x", 1), 1);
  });
  EXPECT_TRUE(read(0, {&byte, 1}, from.get()).ok());
  writer.join();
  EXPECT_EQ(byte, 'x');
}

}  // namespace
}  // namespace oxbow
